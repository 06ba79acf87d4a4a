"""A forked child: billiard's worker loop over the job socket."""

from __future__ import annotations

import itertools
import logging
import os
import signal
import sys
from time import time

import billiard
from billiard import pool as billiard_pool
from celery import signals
from celery.concurrency.prefork import process_destructor, process_initializer
from celery.platforms import set_pdeathsig

from . import coroutines, exits, logs
from .desk import Desk
from .frames import EXIT, READY, RUN, Closed, JobSocket, ProtocolError, adopt, encode_json
from .limits import SoftLimit
from .page import Page
from .shared import SharedWorker
from .steward import MainProcess, Steward
from .turn import CURRENT, Turn

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
        self.job = job
        self.page = page
        self.desk = Desk(worker, job, store)
        self.limit = SoftLimit(page)
        self.turn = None
        super().__init__(
            None,
            self,
            initializer=process_initializer,
            initargs=(worker.app, worker.hostname),
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
        coroutines.use(coroutines.Here())
        self.desk.furnish()
        self.job.send(READY, 0, encode_json({"pid": pid}))

    def _do_exit(self, pid, exitcode, exc=None):
        """billiard also tells the pool and waits a second for it to read; here the template sees the end."""
        if exitcode is None:
            exitcode = billiard_pool.EX_FAILURE if exc else billiard_pool.EX_OK
        try:
            if self.on_exit is not None:
                self.on_exit(pid, exitcode)
            logging.shutdown()
            exits.flush()
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
        turn = self.turn = Turn(tag, self.limit)
        CURRENT.set(turn)
        job = self.desk.open(turn, meta, body)
        if job is None:
            self.page.end()
            return None
        return _TASK, (tag, None, *job, {})

    def put(self, item) -> None:
        """Stands for billiard's `outq`."""
        kind, arguments = item
        turn = self.turn
        if kind == _ACK:
            self.page.begin(turn.tag, time())
            self.desk.accept(turn)
            self.limit.arm(turn.tag)
        elif kind == _READY:
            self.limit.disarm()
            ok, value = arguments[2]
            self.desk.close(turn, ok, value)
            self.page.end()

    def _end_by_protocol(self, error) -> None:
        logs.error("The worker broke the protocol: %s", error)
        sys.exit(EX_PROTOCOL)


#: What a child does, by its role.
_BODIES = {"worker": TaskWorker, "shared": SharedWorker, "steward": Steward}


def prepare(frame: dict):
    """The process object of the next child; made in the template, which counts those that run tasks.

    Celery tells that one is coming, concurrency/asynpool.py:_create_worker_process of 5.3 to 5.7.
    """
    if frame["role"] != "worker":
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
        body = _BODIES[frame["role"]]
        process.body = body(worker, JobSocket.from_descriptor(job), shared, bool(frame.get("store")))
        code = process._bootstrap()
    finally:
        os._exit(code)
