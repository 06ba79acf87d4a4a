"""A forked child: billiard's worker loop over the job socket."""

from __future__ import annotations

import itertools
import logging
import os
import signal
import sys
from time import monotonic, time

import billiard
from billiard import pool as billiard_pool
from billiard.einfo import ExceptionInfo
from celery import signals
from celery.app import trace
from celery.concurrency.prefork import process_destructor, process_initializer
from celery.exceptions import TaskRevokedError
from celery.platforms import set_pdeathsig

from . import logs, outcomes, results
from .frames import DONE, EXIT, READY, RUN, Closed, JobSocket, ProtocolError, adopt, encode_json
from .limits import SoftLimit
from .outcomes import Run, as_main_process
from .page import Page
from .refusals import Refuser, consumer_of
from .request import Delivery, has_own_request
from .steward import MainProcess, Steward

EX_PROTOCOL = 70

#: The kinds of messages between billiard's pool and its workers (pool.py, 3.6 to 4.3).
_ACK, _READY, _TASK = billiard_pool.ACK, billiard_pool.READY, billiard_pool.TASK


class ForkPoolWorker(billiard.get_context("fork").Process):
    """The process object, named and numbered as those of Celery's prefork pool: `ForkPoolWorker-3`."""

    _numbers = itertools.count(1)

    def __init__(self, slot: int):
        super().__init__(name=f"ForkPoolWorker-{next(self._numbers)}")
        self.daemon = True
        self.index = slot
        self.body = None

    def run(self):
        self.body()


class TaskWorker(billiard_pool.Worker):
    """`billiard.pool.Worker` whose queues are the job socket.

    `workloop` itself is billiard's, so that its rules for exits hold and libraries that wrap it (sentry
    flushes there) keep working. It takes jobs from `wait_for_job` and puts answers into `outq`.
    """

    def __init__(self, worker, job: JobSocket, page: Page, store: bool):
        self.app = app = worker.app
        self.hostname = hostname = worker.hostname
        self.job = job
        self.page = page
        self.store = store
        self.limit = SoftLimit(page)
        self.results = None
        self.run = None
        self.tag = 0
        self.tasks = app.tasks
        self.with_own_request = {}
        self.refuser = Refuser(app, hostname)
        self.consumer = consumer_of(worker)
        super().__init__(
            None,
            self,
            initializer=process_initializer,
            initargs=(app, hostname),
            on_exit=process_destructor,
        )

    def contribute_to_object(self, obj):
        obj.inqW_fd = obj.synqW_fd = None
        return obj

    def _make_child_methods(self, *_args, **_options):
        self.wait_for_job = self.next_job
        self.wait_for_syn = None

    def after_fork(self):
        super().after_fork()
        self.limit.install()

    def on_loop_start(self, pid):
        backend = self.app.backend
        if self.store and not results.is_own(backend):
            self.results = results.DeferredResults(backend, self.job, self.limit)
        self.log = logs.TaskLog(self.app)
        self.job.send(READY, 0, encode_json({"pid": pid}))

    def _do_exit(self, pid, exitcode, exc=None):
        """billiard also tells the pool and waits a second for it to read; here the template sees the end."""
        if exitcode is None:
            exitcode = billiard_pool.EX_FAILURE if exc else billiard_pool.EX_OK
        try:
            if self.on_exit is not None:
                self.on_exit(pid, exitcode)
            logging.shutdown()
            flush()
        finally:
            os._exit(exitcode if isinstance(exitcode, int) else billiard_pool.EX_FAILURE)

    def next_job(self):
        """The next run as billiard's `TASK`, or None when it was refused at once."""
        try:
            op, tag, meta, body = self.job.receive()
        except Closed:
            sys.exit(billiard_pool.EX_FAILURE)
        except ProtocolError as error:
            self._end_by_protocol(error)
        if op == EXIT:
            sys.exit(billiard_pool.EX_OK)
        if op != RUN or not tag or not isinstance(meta, dict):
            self._end_by_protocol(f"op {op}, tag {tag}")
        self.tag = tag
        if self.results is not None:
            self.results.begin(tag)
        delivery = None
        try:
            delivery = Delivery(tag, meta, body, self.app)
            return _TASK, (tag, None, *self._job(delivery), {})
        except TaskRevokedError:
            self._send(outcomes.done(outcomes.REVOKED, outcomes.ACK, 0.0))
        except Exception as error:
            with as_main_process():
                self._send(self.refuser.refuse(delivery, error))
        return None

    def _job(self, delivery) -> tuple:
        name = delivery.headers["task"]
        task = self.tasks[name]
        run = self.run = Run(delivery, task)
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

    def put(self, item) -> None:
        """Stands for billiard's `outq`."""
        kind, arguments = item
        if kind == _ACK:
            run = self.run
            self.page.begin(self.tag, time())
            run.started = monotonic()
            if run.request is not None:
                self._accept(run)
            elif self.log.debug:
                self.log.accepted(run)
            self.limit.arm(self.tag)
        elif kind == _READY:
            self.limit.disarm()
            ok, value = arguments[2]
            self._settle(ok, value)

    def _accept(self, run) -> None:
        """Errors of a callback are only logged, as billiard does (pool.py:safe_apply_callback)."""
        try:
            with as_main_process():
                run.settlement.callbacks["accept_callback"](os.getpid(), run.started)
        except Exception as error:
            logs.error("Cannot accept task %s: %r", run.task.name, error, exc_info=True)

    def _settle(self, ok: bool, value) -> None:
        run = self.run
        if self.limit.raised:
            self.log.soft_limit(run)
        try:
            meta = run.settle(ok, value, self.app, self.hostname)
        except Exception as error:
            with as_main_process():
                meta = self._unsettled(run, error)
        self._send(meta)

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

    def _send(self, meta: bytes) -> None:
        self.job.send(DONE, self.tag, meta)
        self.page.end()
        if self.results is not None:
            self.results.end()

    def _end_by_protocol(self, error) -> None:
        logs.error("The worker broke the protocol: %s", error)
        sys.exit(EX_PROTOCOL)


def flush() -> None:
    """Writes out what the standard streams hold."""
    for stream in (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__):
        try:
            stream.flush()
        except (AttributeError, OSError, ValueError):
            pass


def prepare(frame: dict):
    """The process object of the next child; made in the template, which counts those that run tasks.

    Celery tells that one is coming, concurrency/asynpool.py:_create_worker_process of 5.3 to 5.7.
    """
    if frame["role"] == "steward":
        return MainProcess()
    if hasattr(signals, "worker_before_create_process"):
        signals.worker_before_create_process.send(sender=ForkPoolWorker)
    return ForkPoolWorker(frame["slot"])


def start(process, worker, frame: dict, descriptors: list, parent: int) -> None:
    """What a fresh child does, from its fork to its end. Does not return."""
    code = billiard_pool.EX_FAILURE
    try:
        job, page, output, errors = descriptors
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
            signal.signal(number, signal.SIG_DFL)
        set_pdeathsig("SIGKILL")
        if os.getppid() != parent:
            os._exit(code)
        adopt(output, 1)
        adopt(errors, 2)
        shared = Page(page)
        os.close(page)
        kind = Steward if frame["role"] == "steward" else TaskWorker
        process.body = kind(worker, JobSocket.from_descriptor(job), shared, bool(frame.get("store")))
        code = process._bootstrap()
    finally:
        os._exit(code)
