"""Every way a task can end."""

import os
import signal
import threading
import time

from celery import Task
from celery.exceptions import Ignore, Reject
from celery.worker.request import Request

from .celery import app
from .world import note, wait_at


#: Long enough for a retry to be told before it runs again.
RETRY_SECONDS = 0.3


@app.task
def add(x, y):
    """The first task of everybody."""
    return x + y


@app.task
def echo(value):
    """Gives back what it gets."""
    return value


@app.task
def routed():
    """Goes to a queue of its own by `task_routes`."""
    return "routed"


@app.task(bind=True)
def bound(self, word):
    """Knows itself."""
    return [type(self).__name__, self.name, self.app.main, word, self.request.called_directly]


@app.task
def fails(text="bad"):
    """Has a mistake."""
    raise ValueError(text)


@app.task(throws=(KeyError,))
def fails_expectedly():
    """Its failure is part of the game."""
    raise KeyError("wanted")


class Odd(Exception):
    """Cannot be pickled."""

    def __init__(self, one, two):
        super().__init__("odd", one, two)
        self.lock = threading.Lock()


@app.task
def odd():
    """Raises what cannot be pickled."""
    raise Odd(1, 2)


@app.task
def unencodable():
    """Returns what no serializer takes."""
    return threading.Lock()


@app.task
def leaves(code):
    """Ends its process politely."""
    raise SystemExit(code)


def act(self, how):
    """What a task of the given way does on each of its deliveries."""
    again = self.request.delivery_info["redelivered"]
    if how == "fail":
        raise ValueError("failed")
    if how == "ignore":
        raise Ignore()
    if how == "reject":
        raise Reject("no good", requeue=False)
    if how == "requeue" and not again:
        raise Reject("once more", requeue=True)
    if how == "retry" and not self.request.retries:
        raise self.retry(countdown=RETRY_SECONDS)
    if how == "die" and not again:
        os.kill(os.getpid(), signal.SIGKILL)
    return [how, again]


@app.task(bind=True)
def early(self, how):
    """Acknowledged when it starts."""
    return act(self, how)


@app.task(bind=True, acks_late=True)
def late(self, how):
    """Acknowledged when it ended."""
    return act(self, how)


@app.task(bind=True, acks_late=True, acks_on_failure_or_timeout=False)
def late_keeps(self, how):
    """A failure is a rejection."""
    return act(self, how)


@app.task(bind=True, acks_late=True, reject_on_worker_lost=True)
def late_lost(self, how):
    """Comes back when its process dies."""
    return act(self, how)


@app.task(bind=True, autoretry_for=(OSError,), max_retries=2, default_retry_delay=RETRY_SECONDS)
def autoretries(self, until):
    """Retried by Celery until it is lucky."""
    if self.request.retries < until:
        raise OSError(f"try {self.request.retries}")
    return self.request.retries


@app.task(bind=True, autoretry_for=(Exception,), dont_autoretry_for=(KeyError,), retry_backoff=0.01,
          retry_jitter=False, max_retries=3)
def autoretries_but(self):
    """One kind of failure is not retried."""
    raise OSError("soft") if not self.request.retries else KeyError("hard")


@app.task(bind=True, max_retries=1)
def retries_out(self, with_exc):
    """Gives up: with its own exception, or with Celery's."""
    raise self.retry(countdown=RETRY_SECONDS, exc=ValueError("mine") if with_exc else None)


@app.task(bind=True, max_retries=3)
def retries_changed(self, word, **options):
    """The next try has other arguments."""
    if self.request.retries:
        return [word, options, self.request.retries, self.request.delivery_info["routing_key"]]
    raise self.retry(args=(f"{word}!",), kwargs={"more": True}, countdown=RETRY_SECONDS)


@app.task(bind=True)
def retries_in_except(self):
    """The usual form, inside of an except."""
    try:
        {}["key"]
    except KeyError as error:
        if self.request.retries == 2:
            return "third time"
        raise self.retry(exc=error, countdown=RETRY_SECONDS, max_retries=5) from error


class Hooked(Task):
    """A Task class whose every hook says that it was called."""

    abstract = True

    def __call__(self, *args, **kwargs):
        note("hook", self.request.id, hook="__call__", args=args)
        return super().__call__(*args, **kwargs)

    def before_start(self, task_id, args, kwargs):
        note("hook", task_id, hook="before_start", args=args)

    def on_success(self, retval, task_id, args, kwargs):
        note("hook", task_id, hook="on_success", retval=retval)

    def on_failure(self, exc, task_id, args, kwargs, einfo):
        note("hook", task_id, hook="on_failure", exc=exc, einfo=type(einfo).__name__)

    def on_retry(self, exc, task_id, args, kwargs, einfo):
        note("hook", task_id, hook="on_retry", exc=exc, einfo=type(einfo).__name__)

    def after_return(self, status, retval, task_id, args, kwargs, einfo):
        note("hook", task_id, hook="after_return", status=status, retval=retval)


@app.task(bind=True, base=Hooked)
def hooked(self, how):
    """Of that class."""
    return act(self, how)


@app.task(bind=True, base=Hooked, time_limit=1)
def hooked_slow(self, _how):
    """Over its limit; hooks of what Celery's main process tells."""
    time.sleep(GATE)


GATE = 30


class OwnRequest(Request):
    """Says what Celery's main process does with the message of its task."""

    def on_accepted(self, pid, time_accepted):
        note("request", self.id, method="on_accepted")
        return super().on_accepted(pid, time_accepted)

    def on_success(self, failed__retval__runtime, **options):
        note("request", self.id, method="on_success", failed=failed__retval__runtime[0])
        return super().on_success(failed__retval__runtime, **options)

    def on_failure(self, exc_info, send_failed_event=True, return_ok=False):
        note("request", self.id, method="on_failure", exception=type(exc_info.exception).__name__)
        return super().on_failure(exc_info, send_failed_event=send_failed_event, return_ok=return_ok)

    def on_timeout(self, soft, timeout):
        note("request", self.id, method="on_timeout", soft=soft, timeout=timeout)
        return super().on_timeout(soft, timeout)


@app.task(bind=True, Request=OwnRequest)
def requested(self, how):
    """Of that Request."""
    return act(self, how)


@app.task(bind=True, Request=OwnRequest, time_limit=1)
def requested_slow(self, _how):
    """Over its limit."""
    time.sleep(GATE)


@app.task(bind=True)
def steps(self):
    """Says how far it is, and reads it back."""
    self.update_state(state="PROGRESS", meta={"done": 1})
    first = app.AsyncResult(self.request.id)
    seen = [first.state, first.info]
    self.update_state(state="PROGRESS", meta={"done": 2})
    return seen


@app.task(track_started=True)
def tracked():
    """Is seen when it begins."""
    return "tracked"


@app.task(ignore_result=True)
def forgotten():
    """Its result is nobody's business."""
    return "forgotten"


@app.task(ignore_result=True)
def forgotten_fails():
    """Neither is its failure."""
    raise ValueError("forgotten")


@app.task(ignore_result=True, store_errors_even_if_ignored=True)
def errors_kept():
    """Its failure is."""
    raise ValueError("kept")


@app.task
def held(gate):
    """Runs until the driver opens."""
    return wait_at(gate)


@app.task(bind=True)
def calls(self):
    """Sends another task from inside."""
    return add.delay(20, 3).id


@app.task
def gets(task_id):
    """Reads the result of another task."""
    return app.AsyncResult(task_id).get(timeout=10, disable_sync_subtasks=False)


@app.task(acks_late=True)
def late_held(gate):
    """The same, acknowledged when it ended."""
    return wait_at(gate)
