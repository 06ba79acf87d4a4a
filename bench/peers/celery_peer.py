"""Stock Celery with tasks that do nothing; also the producer of the backlog that celeriac drains."""

import os
import time

from celery import Celery

app = Celery("celery_peer", broker=os.environ["BROKER"], backend=os.environ["BROKER"])
app.conf.worker_prefetch_multiplier = int(os.environ.get("PREFETCH", "4"))


@app.task(name="bench.noop", ignore_result=True)
def noop(padding):
    pass


@app.task(name="bench.result")
def result(padding):
    pass


@app.task(name="bench.stamp", ignore_result=True)
def stamp(sent_at):
    micros = (time.time() - sent_at) * 1e6
    with open(os.environ["STAMPS"], "a") as file:
        file.write(f"{micros:.0f}\n")
