"""The steward: the child that stands for Celery's main process.

It tells the app what only that process knows: that a task was revoked, ran out of time or died with its
child, and that the worker started or stops. It runs no tasks and serves one frame at a time.
"""

from __future__ import annotations

import signal
import time
from types import SimpleNamespace

import billiard
import celery
from billiard.common import human_status
from billiard.exceptions import TimeLimitExceeded, WorkerLostError
from celery import signals, states
from celery._state import set_default_app
from celery.app import trace
from celery.worker import request as celery_request
from celery.worker import state as worker_state
from celery.worker.heartbeat import Heart
from kombu.utils.encoding import safe_repr
from kombu.utils.imports import symbol_by_name

from . import chords, logs, outcomes, results
from .frames import DONE, POST_MORTEM, TELL, ProtocolError
from .limits import NoLimit
from .outcomes import Settlement
from .refusals import Refuser, consumer_of
from .request import Delivery, build
from .serving import Serving
from .turn import CURRENT, Turn

#: Since 5.7 on_timeout tells everybody of the failure; before, only on_failure does.
_TIMEOUT_TELLS = (celery.VERSION.major, celery.VERSION.minor) >= (5, 7)


class MainProcess(billiard.get_context("fork").Process):
    """A process whose lines in the log carry the name of Celery's main process."""

    def __init__(self, body=None):
        super().__init__(name="MainProcess")
        self.body = body

    def run(self):
        self.body()


class Steward(Serving):
    """Serves `P` and `Y` over a job socket."""

    name = "steward"
    operations = (POST_MORTEM, TELL)

    def __init__(self, worker, job, page, store: bool):
        super().__init__(worker, job)
        self.worker = worker
        self.page = page
        self.store = store
        self.results = None
        self.refuser = Refuser(self.app, self.hostname)
        self.senders = Senders(worker)

    def begin(self) -> None:
        """As main processes are: `worker_process_init` is for those that run tasks."""
        self.app.set_current()
        set_default_app(self.app)
        trace.setup_worker_optimizations(self.app, self.hostname)
        worker_state.reset_state()
        backend = self.app.backend
        if self.store and not results.is_own(backend):
            self.results = results.DeferredResults(backend, self.job)

    def serve(self, op: int, tag: int, meta: dict, body: bytes) -> None:
        self.page.begin(tag, time.time())
        turn = Turn(tag, NoLimit())
        CURRENT.set(turn)
        answer = self._tell(meta) if op == TELL else self._examine(tag, meta, body)
        self.job.send(DONE, tag, answer)
        self.page.end()
        if self.results is not None:
            self.results.end(turn)

    def _tell(self, meta: dict) -> bytes:
        kind = meta.get("signal")
        try:
            self.senders.send(kind, meta)
        except KeyError as error:
            raise ProtocolError(f"unknown signal {kind!r}") from error
        return outcomes.success(0.0, None)

    def _examine(self, tag: int, meta: dict, body: bytes) -> bytes:
        kind = meta.get("kind")
        if kind not in Examination.kinds:
            raise ProtocolError(f"unknown post-mortem {kind!r}")
        delivery = None
        try:
            delivery = Delivery(tag, meta, body, self.app)
            task = self.app.tasks[delivery.headers["task"]]
            examination = Examination(delivery, task, self.worker, self.senders.consumer, meta)
        except Exception as error:
            return self.refuser.refuse(delivery, error)
        return examination.answer(kind)


class Examination:
    """What Celery's `Request` makes of a task that ended without a word.

    worker/request.py of 5.2 to 5.7: on_timeout, on_failure with a lost worker, revoked and terminate.
    """

    def __init__(self, delivery, task, worker, consumer, meta: dict):
        self.meta = meta
        self.consumer = consumer
        self.delivery = delivery
        self.task = task
        self.settlement = Settlement()
        self.request = build(
            symbol_by_name(task.Request),
            delivery,
            task,
            worker.app,
            worker.hostname,
            self.settlement,
        )
        if meta.get("started"):
            self.request.time_start = meta["started"]
            self.request.worker_pid = meta.get("pid")
            if not task.acks_late:
                self.request.acknowledged = True
                self.settlement.disposition = outcomes.ACK

    def answer(self, kind: str) -> bytes:
        """The meta of `D`."""
        error = None
        try:
            error = self.kinds[kind](self)
        except Exception as failure:
            logs.error("Cannot settle task %s: %r", self.task.name, failure, exc_info=True)
            error = failure
        state = self._state(error)
        fate = self.settlement.disposition or (
            outcomes.REQUEUE if state == outcomes.FAILURE else outcomes.ACK
        )
        event = self.settlement.events.get("task-failed") or self.settlement.events.get("task-retried") or {}
        told = error if state in (outcomes.FAILURE, outcomes.RETRIED) else None
        trace = event.get("traceback") or None
        meta = outcomes.done(state, fate, 0.0, outcomes.describe(told), trace, events=self.settlement.sent)
        return outcomes.looking_again(meta, self._chord_waits())

    def _chord_waits(self) -> float | None:
        try:
            return chords.look_again(self.task, self.request)
        except Exception as error:
            logs.error("Cannot look after the chord of %s: %r", self.task.name, error, exc_info=True)
            return None

    def _state(self, error) -> str:
        events = self.settlement.events
        if "task-revoked" in events:
            return outcomes.REVOKED
        if "task-retried" in events:
            return outcomes.RETRIED
        if "task-succeeded" in events:
            return outcomes.SUCCESS
        if "task-rejected" in events and "task-failed" not in events:
            return outcomes.REJECTED
        return outcomes.FAILURE if error is not None else outcomes.IGNORED

    def _timeout(self):
        limit = self._as_written(self.meta.get("limit"))
        error = TimeLimitExceeded(limit)
        if not _TIMEOUT_TELLS:
            # billiard/pool.py:on_hard_timeout lets the task fail before it calls on_timeout.
            try:
                raise error
            except TimeLimitExceeded:
                info = billiard.einfo.ExceptionInfo()
            self.request.on_failure(info)
        self.request.on_timeout(False, limit)
        return error

    def _as_written(self, limit):
        """The number as it stands in the call or at the task: whoever wrote 1 reads 1, not 1.0."""
        hard = (self.request.request_dict.get("timelimit") or (None, None))[0]
        for written in (hard, self.task.time_limit, self.request.app.conf.task_time_limit):
            if written == limit:
                return written
        return int(limit) if isinstance(limit, float) and limit.is_integer() else limit

    def _lost(self):
        number = self.meta.get("signal")
        status = human_status(self.meta.get("code") if number is None else -number)
        try:
            # billiard/pool.py:mark_as_worker_lost; jobs are numbered by whoever gives them out.
            raise WorkerLostError(f"Worker exited prematurely: {status} Job: {self.delivery.tag}.")
        except WorkerLostError as error:
            lost = error
            info = billiard.einfo.ExceptionInfo()
        if self._finish_part():
            return None
        self.request.on_failure(info)
        return lost

    def _finish_part(self) -> bool:
        """Whether it is a member of a chord whose success was stored before its child died.

        Its part may not have been counted: backends/base.py:mark_as_done stores first and counts then, and the
        chord would wait for ever. Counting twice is counting once, for Redis keeps parts by what they are.
        """
        request, backend = self.request, self.task.backend
        if not request.chord or getattr(request, "ignore_result", self.task.ignore_result):
            return False
        meta = backend.get_task_meta(request.id, cache=False)
        if meta["status"] != states.SUCCESS:
            return False
        chords.count(self.task, request)
        request.acknowledge()
        self.settlement.send("task-succeeded", result=safe_repr(meta["result"]), runtime=None)
        return True

    def _part(self):
        """It has ended, and its chord is looked at once more."""
        chords.count(self.task, self.request)
        self.settlement.disposition = outcomes.ACK

    def _receive(self):
        """No child has received it. What waited for its time was received before it was revoked."""
        log = logs.TaskLog(self.request.app)
        if log.info:
            log.received(self.delivery, self.task)
        if self.request.eta:
            signals.task_received.send(sender=self.consumer, request=self.request)

    def _poisoned(self):
        """As lost, but it never runs again, whatever the task says."""
        task = self.task
        task.reject_on_worker_lost, rejects = False, task.reject_on_worker_lost
        task.retry_on_worker_lost, retries = False, getattr(task, "retry_on_worker_lost", False)
        try:
            return self._lost()
        finally:
            task.reject_on_worker_lost, task.retry_on_worker_lost = rejects, retries

    def _terminated(self):
        number = signal.Signals(self.meta.get("signal") or signal.SIGTERM)
        self.request._announce_revoked("terminated", True, number, False)

    def _revoked(self):
        self._receive()
        stamps = self.meta.get("stamps") or {}
        if stamps:
            worker_state.revoked_stamps.update(stamps)
        else:
            worker_state.revoked.add(self.request.id)
        try:
            self.request.revoked()
        finally:
            worker_state.revoked.discard(self.request.id)
            for header in stamps:
                worker_state.revoked_stamps.pop(header, None)

    def _expired(self):
        self._receive()
        try:
            if not self.request.revoked():
                # The clock of the worker is ahead of this one.
                celery_request.logger.info(
                    "Discarding revoked task: %s[%s]", self.request.name, self.request.id
                )
                self.request._announce_revoked("expired", False, None, True)
        finally:
            worker_state.revoked.discard(self.request.id)

    kinds = {
        "timeout": _timeout,
        "lost": _lost,
        "poison": _poisoned,
        "part": _part,
        "terminated": _terminated,
        "revoked": _revoked,
        "expired": _expired,
    }


class Senders:
    """Sends the signals of Celery's main process, with stand-ins for the parts that send them there."""

    def __init__(self, worker):
        self.worker = worker
        self.consumer = consumer_of(worker)
        eventer = SimpleNamespace(
            on_enabled=set(), on_disabled=set(), enabled=False, hostname=worker.hostname
        )
        self.heart = Heart(None, eventer)

    def send(self, kind: str, meta: dict) -> None:
        """Sends one. Raises `KeyError` for a signal that is not one of these."""
        self._known[kind](self, meta)

    def _ready(self, _meta: dict) -> None:
        """apps/worker.py:on_consumer_ready; the worker writes that it is ready."""
        signals.worker_ready.send(sender=self.consumer)

    def _shutting_down(self, meta: dict) -> None:
        """apps/worker.py:_shutdown_handler."""
        signals.worker_shutting_down.send(
            sender=self.worker.hostname,
            sig=meta.get("sig", "SIGTERM"),
            how=meta.get("how", "Warm"),
            exitcode=meta.get("exitcode", 0),
        )

    def _shutdown(self, _meta: dict) -> None:
        """worker/worker.py:_send_worker_shutdown."""
        signals.worker_shutdown.send(sender=self.worker)

    def _heartbeat(self, _meta: dict) -> None:
        """worker/heartbeat.py:_send."""
        signals.heartbeat_sent.send(sender=self.heart)

    _known = {
        "worker_ready": _ready,
        "worker_shutting_down": _shutting_down,
        "worker_shutdown": _shutdown,
        "heartbeat_sent": _heartbeat,
    }
