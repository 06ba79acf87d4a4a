"""What becomes of a message once its task has ended.

A success is reported by three rules of our own. Every other outcome goes through the `Request` of the
installed Celery, whose acknowledgements and events are caught: so `acks_late`, `Reject`, `Retry`, lost
workers and the rest mean what that version means by them.
"""

from __future__ import annotations

from contextlib import contextmanager
from json.encoder import encode_basestring
from time import monotonic

from billiard.common import human_status
from billiard.einfo import ExceptionInfo
from billiard.exceptions import Terminated
from billiard.process import current_process
from celery.exceptions import Ignore, Reject, Retry, WorkerLostError
from celery.utils.serialization import get_pickled_exception
from kombu.utils.encoding import safe_repr, safe_str

from . import request as requests
from .frames import encode_json

ACK = "ack"
REJECT = "reject"
REQUEUE = "requeue"

SUCCESS = "success"
FAILURE = "failure"
IGNORED = "ignored"
REJECTED = "rejected"
RETRIED = "retry"
REVOKED = "revoked"

_SUCCESS_END = b',"exception":null,"traceback":null,"leaves":false}'


class Settlement:
    """Stands for the consumer, the pool and the event sender of a `Request`, and remembers what it wants."""

    enabled = True

    def __init__(self):
        self.disposition = None
        self.events = {}
        self.sent = []
        self.trace = None
        self.callbacks = {}

    def on_ack(self, _logger, _errors) -> None:
        self.disposition = self.disposition or ACK

    def on_reject(self, _logger, _errors, requeue) -> None:
        self.disposition = self.disposition or (REQUEUE if requeue else REJECT)

    def send(self, kind: str, **fields) -> None:
        """`EventDispatcher.send`."""
        self.events[kind] = fields
        fields.pop("uuid", None)
        # The worker has told that it began.
        if kind != "task-started":
            self.sent.append((kind, fields))

    def apply_async(self, target, args=(), kwargs=None, **callbacks) -> None:
        """`BasePool.apply_async`: keeps the call, which the child's own loop makes."""
        self.trace = (target, args)
        self.callbacks = callbacks


def success(runtime: float, result: str | None, disposition: str = ACK) -> bytes:
    """The meta of a success, written without an encoder because most runs end so."""
    text = "null" if result is None else encode_basestring(result)
    head = f'{{"state":"success","disposition":"{disposition}","runtime":{runtime!r},"result":{text}'
    return head.encode("utf-8", "backslashreplace") + _SUCCESS_END


def looking_again(meta: bytes, seconds: float | None) -> bytes:
    """The same meta, with the wish to look after the chord of the task, see `chords`."""
    return meta if seconds is None else meta[:-1] + f',"look_again":{seconds!r}}}'.encode()


def done(
    state, disposition, runtime, exception=None, traceback=None, leaves=False, events=None
) -> bytes:
    """The meta of any other outcome; `events` are those that Celery would send of it, where it is asked."""
    return encode_json(
        {
            "state": state,
            "disposition": disposition,
            "runtime": runtime,
            "result": None,
            "exception": exception,
            "traceback": traceback,
            "leaves": leaves,
            "events": events,
        }
    )


def describe(error) -> dict | None:
    """An exception for the worker, however badly it behaves."""
    if error is None:
        return None
    error = get_pickled_exception(error)
    try:
        message = safe_str(str(error))
    except Exception:
        message = safe_repr(error)
    return {
        "type": type(error).__name__,
        "module": type(error).__module__,
        "message": message,
        "repr": safe_repr(error),
        "bases": [(one.__module__, one.__qualname__) for one in type(error).__mro__[1:-1]],
    }


def unwrap(error):
    """The exception itself, which billiard 4 wraps to carry its traceback through a pickle (einfo.py)."""
    return getattr(error, "exc", error) if type(error).__name__ == "ExceptionWithTraceback" else error


@contextmanager
def as_main_process():
    """Lines that Celery's main process would write carry its name."""
    process = current_process()
    name, process._name = process._name, "MainProcess"
    try:
        yield
    finally:
        process._name = name


class Run:
    """One run: a delivery, its task and how it is settled."""

    __slots__ = ("delivery", "task", "settlement", "request", "started", "leaves")

    def __init__(self, delivery, task):
        self.delivery = delivery
        self.task = task
        self.settlement = None
        self.request = None
        self.started = 0.0
        self.leaves = False

    def prepare_own(self, app, hostname: str) -> None:
        """Lets the task's own `Request` class start the run."""
        self.settlement = Settlement()
        self.request = requests.build_own(self.delivery, self.task, app, hostname, self.settlement)
        self.request.execute_using_pool(self.settlement)

    def received(self, app, hostname: str):
        """A `Request` for those who look at what was received; another one settles the run."""
        return requests.build(
            requests.CeleryRequest, self.delivery, self.task, app, hostname, Settlement()
        )

    def settle(self, ok: bool, value, app, hostname: str) -> bytes:
        """The meta of `D`. `ok` and `value` are billiard's: a tracer's answer, or an `ExceptionInfo`."""
        runtime = monotonic() - self.started
        if ok and not value[0] and self.request is None:
            return success(runtime if value[2] is None else value[2], value[1])
        with as_main_process():
            if self.request is None:
                self._accept_late(app, hostname)
            return self._settle_by_request(ok, value, runtime)

    def _accept_late(self, app, hostname: str) -> None:
        """Puts a fresh request where `Request.on_accepted` would have left it."""
        self.settlement = Settlement()
        self.request = requests.build(
            requests.CeleryRequest,
            self.delivery,
            self.task,
            app,
            hostname,
            self.settlement,
        )
        if not self.task.acks_late:
            self.request.acknowledged = True
            self.settlement.disposition = ACK

    def _settle_by_request(self, ok: bool, value, runtime: float) -> bytes:
        settlement, request = self.settlement, self.request
        if ok and not value[0]:
            request.on_success(value)
            return success(runtime if value[2] is None else value[2], value[1], settlement.disposition or ACK)
        info = value[1] if ok else value
        error = unwrap(info.exception)
        # As it comes out of the pickle in which billiard sends it.
        info.exception = error
        self.leaves = not ok and isinstance(error, (SystemExit, KeyboardInterrupt))
        if self.leaves:
            info = _lost(error)
            error = unwrap(info.exception)
        try:
            if ok:
                request.on_success(value)
            else:
                request.on_failure(info)
        except MemoryError:
            # worker/request.py:on_failure raises it, which ends Celery's main process.
            acks = getattr(self.task, "acks_on_failure", self.task.acks_on_failure_or_timeout)
            settlement.disposition = settlement.disposition or (ACK if acks else REJECT)
        state = _state_of(error)
        disposition = settlement.disposition or REQUEUE
        if state == FAILURE and disposition == REQUEUE and "task-failed" not in settlement.events:
            # worker/request.py:on_failure with reject_on_worker_lost: the task runs again, nothing failed.
            state = REJECTED
        cause, trace = self._told(state, error, info)
        return done(state, disposition, runtime, cause, trace, self.leaves, settlement.sent)

    def _told(self, state: str, error, info) -> tuple:
        """The exception and traceback that Celery's events of this outcome would hold."""
        if state == RETRIED:
            return describe(error.exc), safe_str(info.traceback)
        if state == IGNORED or (state == REJECTED and "task-failed" not in self.settlement.events):
            return None, None
        return describe(error), safe_str(info.traceback)


def _lost(error) -> ExceptionInfo:
    """What a task that exits counts as, worker/request.py:_worker_lost_info of 5.7.

    With billiard before 4.3 the process was gone before it could report, so every Celery called it that.
    Celery before 5.7 with billiard 4.3 fails to encode the exit and loses the task.
    """
    code = getattr(error, "code", None)
    if isinstance(error, SystemExit):
        code = 0 if code is None else code if isinstance(code, int) else 1
        status = human_status(code)
    else:
        status = type(error).__name__
    try:
        raise WorkerLostError(f"Worker exited prematurely: {status}.")
    except WorkerLostError:
        return ExceptionInfo()


def _state_of(error) -> str:
    if isinstance(error, Retry):
        return RETRIED
    if isinstance(error, Reject):
        return REJECTED
    if isinstance(error, Ignore):
        return IGNORED
    if isinstance(error, Terminated):
        return REVOKED
    return FAILURE
