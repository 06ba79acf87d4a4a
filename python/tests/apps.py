"""Apps that the tests run, as texts of files."""

SCENES = """
import os
import sys
import time

from celery import Celery, chain, chord, group, signals
from celery.exceptions import Ignore, Reject, SoftTimeLimitExceeded
from celery.worker.request import Request

app = Celery("proj")
app.conf.update(
    broker_url=os.environ.get("TEST_REDIS", "redis://127.0.0.1:1/0"),
    result_backend=os.environ.get("TEST_REDIS", "redis://127.0.0.1:1/0"),
    worker_send_task_events=True,
    broker_connection_retry_on_startup=True,
)


class Odd(Exception):
    def __init__(self, one, two):
        super().__init__("odd")
        self.hook = lambda: None


class Unprintable(Exception):
    def __repr__(self):
        raise RuntimeError("no repr")

    __str__ = __repr__


class Noted(Request):
    def on_accepted(self, pid, time_accepted):
        print(f"noted start of {self.name}")
        return super().on_accepted(pid, time_accepted)

    def on_failure(self, exc_info, send_failed_event=True, return_ok=False):
        print(f"noted failure of {self.name}")
        return super().on_failure(exc_info, send_failed_event=send_failed_event, return_ok=return_ok)


@app.task
def add(x, y):
    return x + y


@app.task(ignore_result=True)
def noop():
    pass


@app.task
def echo(value):
    return value


@app.task(bind=True)
def fails(self, text="bad"):
    raise ValueError(text)


@app.task(throws=(KeyError,))
def fails_expectedly():
    raise KeyError("wanted")


@app.task(bind=True, acks_late=True)
def late(self, how):
    redelivered = self.request.delivery_info["redelivered"]
    if how == "fail":
        raise ValueError("late")
    if how == "reject":
        raise Reject("no good", requeue=False)
    if how == "requeue" and not redelivered:
        raise Reject("again", requeue=True)
    if how == "ignore":
        raise Ignore()
    if how == "retry" and not self.request.retries:
        raise self.retry(exc=KeyError("later"), countdown=0)
    return how


@app.task(bind=True)
def early(self, how):
    return late.run.__func__(self, how)


@app.task(acks_late=True, acks_on_failure_or_timeout=False)
def late_rejects():
    raise ValueError("rejected")


@app.task(bind=True, acks_late=True, reject_on_worker_lost=True)
def leaves(self, code=3):
    if not self.request.delivery_info["redelivered"]:
        sys.exit(code)
    return "came back"


@app.task
def exits(code):
    sys.exit(code)


@app.task(autoretry_for=(OSError,), max_retries=1, retry_backoff=False, default_retry_delay=0)
def stubborn():
    raise OSError("down")


@app.task(Request=Noted, acks_late=True)
def noted(fail=False):
    if fail:
        raise ValueError("noted")


@app.task(bind=True)
def about(self):
    r = self.request
    return {
        "id": r.id, "hostname": r.hostname, "delivery_info": r.delivery_info, "reply_to": r.reply_to,
        "correlation_id": r.correlation_id, "retries": r.retries, "argsrepr": r.argsrepr,
        "eager": r.is_eager, "root_id": r.root_id, "extra": getattr(r, "extra", None), "group": r.group,
        "properties": r.properties["priority"],
    }


@app.task
def odd():
    raise Odd(1, 2)


@app.task
def unprintable():
    raise Unprintable()


@app.task
def unstorable():
    return object()


@app.task
def surrogate():
    return "\\udc80"


@app.task
def deep():
    return deep.run()


@app.task
def hungry():
    raise MemoryError("full")


@app.task
def noisy():
    os.write(1, b"garbage \\xff\\n")
    os.write(0, b"garbage")
    print("printed")
    return "quiet"


@app.task
def dies(code=7):
    os._exit(code)


@app.task(bind=True)
def progress(self):
    self.update_state(state="PROGRESS", meta={"done": 1})
    first = app.AsyncResult(self.request.id).state
    self.update_state(state="PROGRESS", meta={"done": 2})
    return first, app.AsyncResult(self.request.id).info


@app.task
def state_of(task_id):
    return app.AsyncResult(task_id).state


@app.task(track_started=True)
def tracked():
    return "done"


@app.task(soft_time_limit=5)
def waits(path, catch=False):
    try:
        with open(path) as pipe:
            pipe.read()
    except SoftTimeLimitExceeded:
        if catch:
            return "caught"
        raise


@app.task
def waits_twice(path):
    try:
        with open(path) as pipe:
            return pipe.read()
    except SoftTimeLimitExceeded:
        print("caught")
    with open(path + "2") as pipe:
        return pipe.read()


@app.task(bind=True)
def replaced(self):
    return self.replace(add.s(3, 4))


@app.task(bind=True, typing=True)
def typed(self, x):
    return x


@app.task
def shared():
    from billiard.process import current_process
    return {
        "name": current_process().name, "index": current_process().index, "group": os.getpgrp(),
        "daemon": current_process().daemon, "argv": sys.argv, "path0": sys.path[0],
        "stdin": os.readlink("/proc/self/fd/0"), "fast": os.environ.get("USE_FAST_LOCALS"),
    }


@app.task
async def awaited():
    pass


def on_before_create_process(**kwargs):
    print("process is coming")


if hasattr(signals, "worker_before_create_process"):
    signals.worker_before_create_process.connect(on_before_create_process)


@signals.worker_process_init.connect
def on_process_init(**kwargs):
    print("process init")


@signals.worker_process_shutdown.connect
def on_process_shutdown(pid=None, exitcode=None, **kwargs):
    print(f"process shutdown {exitcode}")
"""

DEDUPLICATED = """
from celery import Celery
import os
import threading
app = Celery("proj", broker=os.environ["TEST_REDIS"], backend=os.environ["TEST_REDIS"])
app.conf.worker_deduplicate_successful_tasks = True
app.conf.task_acks_late = True


@app.task
def once():
    return "ran"


@app.task(bind=True)
def threaded(self):
    task_id = self.request.id
    worker = threading.Thread(target=lambda: app.backend.store_result(task_id, {"n": 1}, "PROGRESS"))
    worker.start()
    worker.join()
    return app.AsyncResult(task_id).state
"""
