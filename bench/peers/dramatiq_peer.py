"""Dramatiq with actors that do nothing, on its Redis broker with its default middleware."""

import os
import time

import dramatiq
from dramatiq.brokers.redis import RedisBroker

broker = RedisBroker(url=os.environ["BROKER"])
if os.environ.get("RESULTS"):
    from dramatiq.results import Results
    from dramatiq.results.backends import RedisBackend

    broker.add_middleware(Results(backend=RedisBackend(url=os.environ["BROKER"])))
dramatiq.set_broker(broker)
STORE = {"store_results": True} if os.environ.get("RESULTS") else {}


@dramatiq.actor(max_retries=0, **STORE)
def noop(padding):
    return None


@dramatiq.actor(max_retries=0)
def stamp(sent_at):
    micros = (time.time() - sent_at) * 1e6
    with open(os.environ["STAMPS"], "a") as file:
        file.write(f"{micros:.0f}\n")
