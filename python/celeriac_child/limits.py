"""The soft time limit of the task that runs."""

from __future__ import annotations

import signal
from types import FrameType

from billiard.exceptions import SoftTimeLimitExceeded
from celery.app.trace import fast_trace_task, trace_task_ret

_TRACERS = {fast_trace_task.__code__, trace_task_ret.__code__}


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


def _is_traced(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code in _TRACERS:
            return True
        frame = frame.f_back
    return False
