"""The end of a process that stands for Celery's main one, which ends as Python programs do."""

from __future__ import annotations

import atexit
import os
import sys


def leave(code: int) -> None:
    """Calls what libraries have registered with `atexit`, then ends. Does not return.

    Libraries send there what they still hold (sentry, opentelemetry). Threads are not waited for: one of
    them may be in a task that was given up. `logging.shutdown` is among the registered.
    """
    try:
        # It says by itself what fails, and goes on.
        atexit._run_exitfuncs()
        flush()
    finally:
        os._exit(code)


def flush() -> None:
    """Writes out what the standard streams hold."""
    for stream in (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__):
        try:
            stream.flush()
        except (AttributeError, OSError, ValueError):
            pass
