"""What the operator adds to tasks beyond what they say themselves: retries, and values that are failures.

Both are done inside the task's `run`, so that Celery's tracer sees one end of it: nothing is told twice.
Retries are Celery's own (`Task.retry`).
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Mapping
from fnmatch import fnmatchcase
from random import randrange

from billiard.exceptions import Terminated
from celery.exceptions import Ignore, MaxRetriesExceededError, Reject, Retry, TaskError
from kombu.utils.encoding import safe_repr

#: What is no failure of the task, or must not be tried again.
_FINAL = (Ignore, Reject, Retry, Terminated, MaxRetriesExceededError)
#: Where people put the text of an error that they return.
_TEXTS = ("error", "message", "detail", "error_message")
_MISSING = object()


class TaskReturnedError(TaskError):
    """A task has returned what its operator calls a failure."""

    def __reduce__(self):
        # Whoever unpickles the result has Celery, and not this module.
        return TaskError, self.args


TaskReturnedError.__module__ = "celeriac.exceptions"


def apply(app, tasks: dict) -> None:
    """Gives the app's tasks what the worker says of them, by name. To be called once, before any fork."""
    for name, additions in tasks.items():
        task = app.tasks.get(name)
        if task is None:
            continue
        own = hasattr(task, "_orig_run")
        if additions.get("failure_if") or additions.get("success_if"):
            # Inside of app/autoretry.py's wrapper, where there is one: it retries these too.
            inner = "_orig_run" if own else "run"
            setattr(task, inner, _classified(task, getattr(task, inner), additions))
        if "retry" in additions:
            if own:
                # The worker says nothing of retries then, unless they overrule the task's own.
                task.run = vars(task).pop("_orig_run")
            task.run = _retried(task, task.run, additions["retry"])


def _classified(task, run, rules: dict):
    @functools.wraps(run)
    def classified(*args, **kwargs):
        value = run(*args, **kwargs)
        # Called as a function it is one, and nobody waits for a coroutine here.
        if task.request.called_directly or inspect.iscoroutine(value) or not is_failure(value, rules):
            return value
        raise TaskReturnedError(_text_of(value))

    return classified


def is_failure(value, rules: dict) -> bool:
    """Whether a returned value is one, by the rules of `Classifier` in celeriac-core."""
    wanted = rules.get("success_if")
    if wanted and not any(_holds(value, *rule) for rule in wanted):
        return True
    return any(_holds(value, *rule) for rule in rules.get("failure_if") or ())


def _holds(value, path: list, one_of: list) -> bool:
    for key in path:
        value = value.get(key, _MISSING) if isinstance(value, Mapping) else _MISSING
    # To Python, 1 is True.
    return any(value == one and isinstance(value, bool) == isinstance(one, bool) for one in one_of)


def _text_of(value) -> str:
    if isinstance(value, Mapping):
        for key in _TEXTS:
            if isinstance(value.get(key), str):
                return value[key]
    return safe_repr(value)


def _retried(task, run, policy: dict):
    most = policy["max_retries"]

    @functools.wraps(run)
    def retried(*args, **kwargs):
        try:
            return run(*args, **kwargs)
        except _FINAL:
            raise
        except Exception as error:
            request = task.request
            if request.called_directly or not concerns(error, policy):
                raise
            if most is not None and request.retries >= most:
                raise
            try:
                # Without a number of its own it would end at the task's `max_retries`.
                raise task.retry(
                    exc=error,
                    countdown=delay(policy["delay"], request.retries),
                    max_retries=float("inf") if most is None else most,
                )
            finally:
                # app/task.py:retry leaves it there for app/autoretry.py.
                vars(task).pop("override_max_retries", None)

    return retried


def concerns(error: BaseException, policy: dict) -> bool:
    """Whether a retry policy is about an exception, by its name or that of a class it comes from."""
    only = policy["retry_for"]
    return (not only or _named(error, only)) and not _named(error, policy["retry_except"])


def _named(error: BaseException, patterns: list) -> bool:
    names = []
    for one in type(error).__mro__[:-1]:
        names.append(f"{one.__module__}.{one.__qualname__}")
        if one.__module__ == "builtins":
            names.append(one.__qualname__)
    return any(fnmatchcase(name, pattern) for pattern in patterns for name in names)


def delay(how: dict, retries: int) -> float:
    """Seconds before the next run, as `RetryPolicy` in celeriac-core."""
    if "delays" in how:
        delays = how["delays"]
        return delays[min(retries, len(delays) - 1)]
    # Past this power the ceiling is reached, whatever it is.
    seconds = min(how["first"] * 2 ** min(retries, 63), how["max"])
    return randrange(int(seconds) + 1) if how["jitter"] else seconds
