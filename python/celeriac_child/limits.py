"""What the worker asks of a task that runs: to end softly, or at once.

Three ways to raise an exception in somebody else's code: a signal (a child with one task at a time), a call
of the interpreter (threads), and a switch of greenlets. Coroutines are told by their loop, see `coroutines`.
"""

from __future__ import annotations

import ctypes
import signal
import threading
from types import FrameType

from billiard.exceptions import SoftTimeLimitExceeded
from celery.app.trace import fast_trace_task, trace_task_ret

_TRACERS = {fast_trace_task.__code__, trace_task_ret.__code__}


class Abandoned(BaseException):
    """The worker has given this run up; nobody waits for its outcome."""


class SoftLimit:
    """Raises `SoftTimeLimitExceeded` in the task that the worker meant, and nowhere else.

    billiard's own handler (pool.py:soft_timeout_sighandler) raises wherever the child happens to be, so a
    late signal can meet the next task, or the child between two tasks. It raises once a run, so that the
    worker may repeat the signal: Python notes a signal that comes just before a system call only after it.
    """

    def __init__(self, page):
        self._page = page
        self._running = 0
        self._shielded = False
        self._waiting = False
        #: The coroutine that the task waits for.
        self.coroutine = None
        #: Whether the task that runs, or ran last, was told.
        self.raised = False

    def install(self) -> None:
        signal.signal(signal.SIGUSR1, self._on_signal)

    def arm(self, tag: int) -> None:
        self._running = tag
        self.raised = False

    def disarm(self) -> None:
        self._running = 0
        self._waiting = False

    def _on_signal(self, _signum: int, frame: FrameType | None) -> None:
        if (
            self.raised
            or not self._running
            or self._page.soft_target != self._running
            or not _is_traced(frame)
        ):
            return
        self.raised = True
        if self._shielded:
            self._waiting = True
            return
        coroutine = self.coroutine
        if coroutine is not None and not coroutine.stepping:
            # The loop's own code must not be cut.
            coroutine.loop.call_soon_threadsafe(coroutine.strike, SoftTimeLimitExceeded())
            return
        raise SoftTimeLimitExceeded()

    def __enter__(self) -> None:
        """Holds the exception back while a payload goes out, which it would cut in two."""
        self._shielded = True

    def __exit__(self, *_exception) -> None:
        self._shielded = False
        if self._waiting:
            self._waiting = False
            raise SoftTimeLimitExceeded()


class NoLimit:
    """For processes that run no tasks: nothing to hold back."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_exception) -> None:
        pass


class SharedLimit:
    """The limits of one run among several in a process; each run has its own.

    `strike` comes from the thread that hears the worker; everything else is called by the run itself.
    """

    def __init__(self):
        self._lock = threading.Lock()
        self._armed = False
        self._shielded = False
        self._waiting = None
        #: The coroutine that the task waits for.
        self.coroutine = None
        #: Whether the task was told of its soft limit.
        self.raised = False

    def arm(self) -> None:
        """The task begins. Raises what was asked for before."""
        with self._lock:
            self._armed = True
            self._settle_in()
        self._raise_waiting()

    def disarm(self) -> None:
        """The task has ended; nothing is raised any more once this has returned. May be repeated."""
        with self._lock:
            self._armed = False
            self._waiting = None
            self._take_back()

    def strike(self, error: type, heard) -> None:
        """Raises `error` in the run; calls `heard` once whoever is to raise it lives."""
        with self._lock:
            self.raised |= error is SoftTimeLimitExceeded
            coroutine = self.coroutine
            if not self._armed or self._shielded:
                self._waiting = error
            elif coroutine is None:
                self._raise_there(error)
        if coroutine is None:
            heard()
            return

        def strike():
            heard()
            coroutine.strike(error())

        coroutine.loop.call_soon_threadsafe(strike)

    def __enter__(self) -> None:
        """Holds exceptions back while a payload goes out, which they would cut in two."""
        with self._lock:
            self._shielded = True
        try:
            # What was raised just before is due at the next call of a function: here.
            _pass()
        except BaseException:
            self._shielded = False
            raise

    def __exit__(self, *_exception) -> None:
        with self._lock:
            self._shielded = False
        self._raise_waiting()

    def _raise_waiting(self) -> None:
        error, self._waiting = self._waiting, None
        if error is not None:
            raise error()

    def _settle_in(self) -> None:
        """Notes who runs."""
        raise NotImplementedError

    def _raise_there(self, error: type) -> None:
        """Has it raised there, soon."""
        raise NotImplementedError

    def _take_back(self) -> None:
        """Takes back what was not raised yet."""
        raise NotImplementedError


class ThreadLimit(SharedLimit):
    """Of a run in a thread. It is raised between two steps of Python code, so a call that blocks outside of
    Python ends first."""

    def _settle_in(self) -> None:
        self._thread = threading.get_ident()

    def _raise_there(self, error: type) -> None:
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(self._thread), ctypes.py_object(error))

    def _take_back(self) -> None:
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(self._thread), None)


class GreenletLimit(SharedLimit):
    """Of a run in a greenlet. It is raised where the greenlet waits."""

    def _settle_in(self) -> None:
        import gevent

        self._greenlet = gevent.getcurrent()

    def _raise_there(self, error: type) -> None:
        import gevent

        gevent.get_hub().loop.run_callback(self._throw, error)

    def _throw(self, error: type) -> None:
        """In the hub, so that the greenlet waits somewhere; perhaps not in this run any more."""
        if not self._armed:
            return
        if self._shielded:
            self._waiting = error
        else:
            self._greenlet.throw(error)

    def _take_back(self) -> None:
        pass


def _pass() -> None:
    pass


def _is_traced(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code in _TRACERS:
            return True
        frame = frame.f_back
    return False
