"""From a run frame to a run, and from the end of a run to `D`, whatever runs it in between."""

from __future__ import annotations

import os
import threading
from time import monotonic

from billiard.einfo import ExceptionInfo
from celery import signals
from celery.app import trace
from celery.exceptions import TaskRevokedError

from . import chords, logs, outcomes, results
from .frames import DONE
from .outcomes import Run, Settlement, as_main_process
from .refusals import Refuser, consumer_of
from .request import CeleryRequest, Delivery, build, has_own_request


class Desk:
    """Opens and closes the turns of one process."""

    def __init__(self, worker, job, store: bool):
        self.app = worker.app
        self.hostname = worker.hostname
        self.job = job
        self.store = store
        self.log = None
        self._here = threading.local()
        self.tasks = self.app.tasks
        self.with_own_request = {}
        self.refuser = Refuser(self.app, self.hostname)
        self.consumer = consumer_of(worker)

    def furnish(self) -> None:
        """To be called in each thread that opens turns, when logging is the process's own.

        Celery has a backend for each thread, app/base.py:backend.
        """
        if self.log is None:
            self.log = logs.TaskLog(self.app)
        if not hasattr(self._here, "results"):
            backend = self.app.backend
            deferred = self.store and not results.is_own(backend)
            self._here.results = results.DeferredResults(backend, self.job) if deferred else None

    def open(self, turn, meta: dict, body: bytes) -> tuple | None:
        """What to call for this turn, and with what; None when it was refused and is over."""
        delivery = None
        try:
            delivery = Delivery(turn.tag, meta, body, self.app)
            return self._job(turn, delivery)
        except TaskRevokedError:
            self._send(turn, outcomes.done(outcomes.REVOKED, outcomes.ACK, 0.0))
        except Exception as error:
            with as_main_process():
                self._send(turn, self.refuser.refuse(delivery, error))
        return None

    def _job(self, turn, delivery) -> tuple:
        name = delivery.headers["task"]
        task = self.tasks[name]
        run = turn.run = Run(delivery, task)
        arguments = delivery.traced(self.hostname)
        if self.log.info:
            self.log.received(delivery, task)
        try:
            own = self.with_own_request[name]
        except KeyError:
            own = self.with_own_request[name] = has_own_request(task)
        if own:
            with as_main_process():
                run.prepare_own(self.app, self.hostname)
                self._tell_received(run.request)
            return run.settlement.trace
        if signals.task_received.receivers:
            with as_main_process():
                self._tell_received(run.received(self.app, self.hostname))
        return trace.fast_trace_task, arguments

    def _tell_received(self, request) -> None:
        """worker/strategy.py:task_message_handler; here each task is received by the child that runs it."""
        signals.task_received.send(sender=self.consumer, request=request)

    def accept(self, turn) -> None:
        """Its task begins now."""
        run = turn.run
        run.started = monotonic()
        if run.request is not None:
            self._accept_own(run)
        elif self.log.debug:
            self.log.accepted(run)

    def _accept_own(self, run) -> None:
        """Errors of a callback are only logged, as billiard does (pool.py:safe_apply_callback)."""
        try:
            with as_main_process():
                run.settlement.callbacks["accept_callback"](os.getpid(), run.started)
        except Exception as error:
            logs.error("Cannot accept task %s: %r", run.task.name, error, exc_info=True)

    def close(self, turn, ok: bool, value) -> None:
        """Its task has ended: tells the worker. `ok` and `value` are billiard's, see `Run.settle`."""
        run = turn.run
        if turn.limit.raised:
            self.log.soft_limit(run)
        try:
            meta = run.settle(ok, value, self.app, self.hostname)
        except Exception as error:
            with as_main_process():
                meta = self._unsettled(run, error)
        if run.delivery.delivery_info.get("redelivered"):
            meta = outcomes.looking_again(meta, self._chord_waits(run))
        self._send(turn, meta)

    def _chord_waits(self, run) -> float | None:
        """The child that had the task before may have died while it sent the body of its chord."""
        try:
            request = run.request or build(
                CeleryRequest, run.delivery, run.task, self.app, self.hostname, Settlement()
            )
            return chords.look_again(run.task, request)
        except Exception as error:
            logs.error("Cannot look after the chord of %s: %r", run.task.name, error, exc_info=True)
            return None

    def _unsettled(self, run, error) -> bytes:
        """No `Request` could tell the outcome: the message cannot be read, or its result cannot be stored.

        Celery's main process logs the latter and leaves the message unacknowledged, so it comes back.
        """
        if run.request is None:
            return self.refuser.refuse(run.delivery, error)
        logs.error("Cannot settle task %s: %r", run.task.name, error, exc_info=True)
        fate = run.settlement.disposition or (outcomes.REQUEUE if run.task.acks_late else outcomes.ACK)
        trace_text = ExceptionInfo().traceback
        runtime = monotonic() - run.started
        return outcomes.done(
            outcomes.FAILURE, fate, runtime, outcomes.describe(error), trace_text, run.leaves
        )

    def _send(self, turn, meta: bytes) -> None:
        self.job.send(DONE, turn.tag, meta)
        if self._here.results is not None:
            self._here.results.end(turn)
