"""How the app and the driver meet: a file of notes, and gates that hold a task until they are opened."""

import json
import os

import redis
from billiard.process import current_process

GATE_SECONDS = 60
_clients = {}


def role():
    """Celery's main process, or a child that runs tasks; both say it by their name."""
    name = current_process()._name
    return "child" if name.startswith("ForkPoolWorker") else "worker" if name == "MainProcess" else name


def note(kind, task_id=None, **details):
    """A line for the driver; one write, so that lines of processes do not mix."""
    path = os.environ.get("SEMANTICS_NOTES")
    if path is None:
        return
    line = json.dumps({"kind": kind, "id": task_id, "role": role(), **details}, sort_keys=True, default=repr)
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(descriptor, line.encode() + b"\n")
    finally:
        os.close(descriptor)


def client():
    """A connection of this process."""
    pid = os.getpid()
    if pid not in _clients:
        _clients[pid] = redis.Redis.from_url(os.environ["SEMANTICS_URL"])
    return _clients[pid]


def wait_at(gate):
    """Says that it waits, and waits until the driver opens."""
    client().rpush(f"waiting:{gate}", "1")
    return client().blpop([f"gate:{gate}"], GATE_SECONDS) is not None
