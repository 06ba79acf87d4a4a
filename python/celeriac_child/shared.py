"""The child of pools whose tasks share one process: threads, greenlets, coroutines.

Under Celery these pools live in the main process itself; here it is a child, so that the worker can end what
does not end by itself and goes on without it.
"""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor

from billiard.einfo import ExceptionInfo
from billiard.exceptions import SoftTimeLimitExceeded
from celery._state import _set_task_join_will_block
from celery.concurrency import get_implementation
from celery.concurrency.prefork import process_destructor, process_initializer
from celery.exceptions import WorkerLostError

from . import coroutines, logs, outcomes
from .desk import Desk
from .frames import DONE, HEARD, LIMIT, RUN, JobSocket, ProtocolError
from .limits import Abandoned, GreenletLimit, ThreadLimit
from .serving import EX_FAILURE, Serving
from .turn import CURRENT, Turn

#: The worker gives no more runs than it has slots; threads beside those serve what was given up.
_THREADS_MAX = 20_000
_ERRORS = {"soft": SoftTimeLimitExceeded, "hard": Abandoned}


class SharedSocket:
    """A job socket on which many threads send: a payload goes out whole before the next."""

    def __init__(self, job: JobSocket):
        self.receive = job.receive
        self._send = job.send
        self._lock = threading.Lock()

    def send(self, op: int, tag: int, meta: bytes, body: bytes = b"") -> None:
        with self._lock:
            self._send(op, tag, meta, body)


class SharedWorker(Serving):
    """Serves `R` and `L`: each run in a thread of its own, which gevent makes a greenlet."""

    name = "process of the pool"
    operations = (RUN, LIMIT)

    def __init__(self, worker, job: JobSocket, _page, store: bool):
        super().__init__(worker, SharedSocket(job))
        self.pool = worker.pool_cls
        self.desk = Desk(worker, self.job, store)
        self.turns = {}
        self.threads = ThreadPoolExecutor(_THREADS_MAX)
        self.is_green = getattr(self.pool, "is_green", False)

    def begin(self) -> None:
        process_initializer(self.app, self.hostname)
        _set_task_join_will_block(get_implementation(self.pool).task_join_will_block)
        coroutines.identify(self.app)
        if not self.is_green:
            # An event loop belongs to a thread, of which greenlets have one together.
            coroutines.use(coroutines.Beside(self.desk.furnish))
        self.desk.furnish()

    def end(self, code: int) -> None:
        process_destructor(os.getpid(), code)

    def serve(self, op: int, tag: int, meta: dict, body: bytes) -> None:
        if op == LIMIT:
            self._limit(tag, meta.get("kind"))
            return
        self.job.send(HEARD, tag, b"")
        turn = self.turns[tag] = Turn(tag, GreenletLimit() if self.is_green else ThreadLimit())
        self.threads.submit(self._run, turn, tag, meta, body)

    def _limit(self, tag: int, kind) -> None:
        if kind not in _ERRORS:
            raise ProtocolError(f"unknown limit {kind!r}")
        turn = self.turns.get(tag)
        if turn is None:
            # It has just ended.
            self.job.send(HEARD, tag, b"")
        else:
            turn.limit.strike(_ERRORS[kind], lambda: self.job.send(HEARD, tag, b""))

    def _run(self, turn, tag: int, meta: dict, body: bytes) -> None:
        token = CURRENT.set(turn)
        try:
            self.desk.furnish()
            job = self.desk.open(turn, meta, body)
            if job is not None:
                self.desk.accept(turn)
                outcome = self._trace(turn, *job)
                if outcome is None:
                    self.job.send(DONE, tag, outcomes.done(outcomes.REVOKED, outcomes.ACK, 0.0))
                else:
                    self.desk.close(turn, *outcome)
        except BaseException as error:
            # The worker must not wait for a run of which nothing is left.
            logs.error("A run failed outside of its task: %r", error, exc_info=True)
            os._exit(EX_FAILURE)
        finally:
            del self.turns[tag]
            CURRENT.reset(token)

    def _trace(self, turn, target, arguments) -> tuple | None:
        """Runs the task; None when the worker gave it up. As concurrency/base.py:apply_target."""
        outcome = None
        try:
            turn.limit.arm()
            outcome = True, target(*arguments)
            turn.limit.disarm()
        except Abandoned:
            turn.limit.disarm()
        except Exception:
            turn.limit.disarm()
            outcome = outcome or (False, ExceptionInfo())
        except BaseException as error:
            turn.limit.disarm()
            outcome = outcome or (False, _lost(error))
        return outcome


def _lost(error: BaseException) -> ExceptionInfo:
    try:
        raise WorkerLostError(repr(error)) from error
    except WorkerLostError:
        return ExceptionInfo()
