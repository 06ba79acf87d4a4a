"""Settings that Celery does not have: how tasks are retried that do not say so themselves.

People write these names in the belief that Celery reads them; here they do what they say.
"""

from __future__ import annotations

from celery.app.autoretry import add_autoretry_behaviour

from .failures import LoadFailure

#: The attributes of tasks that they stand for, and what they may be.
_SETTINGS = {
    "task_default_retry_delay": ("default_retry_delay", (int, float), "a number of seconds"),
    "task_retry_backoff": ("retry_backoff", (bool, int, float), "true, false or a number of seconds"),
    "task_retry_backoff_max": ("retry_backoff_max", (int, float), "a number of seconds"),
    "task_retry_jitter": ("retry_jitter", (bool,), "true or false"),
}


def apply(app) -> None:
    """Gives the app's tasks what its settings say. Raises `LoadFailure` for a value of another kind."""
    given = {}
    for name, (attribute, kinds, expected) in _SETTINGS.items():
        value = app.conf.get(name)
        if value is None:
            continue
        if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
            raise LoadFailure("app", f"The setting {name} is {value!r}, not {expected}.")
        given[attribute] = value
    if not given:
        return
    for task in app.tasks.values():
        if type(task).__module__.startswith("celery.") or task.name.startswith("celery."):
            continue
        missing = {name: value for name, value in given.items() if not _says(task, name)}
        for name, value in missing.items():
            setattr(task, name, value)
        # Celery reads the others once, when it wraps `run` (app/autoretry.py): it has to wrap it again.
        if missing.keys() - {"default_retry_delay"} and "_orig_run" in vars(task):
            task.run = vars(task).pop("_orig_run")
            add_autoretry_behaviour(task)


def _says(task, name: str) -> bool:
    """Whether the task, or a class of the app that it comes from, has a value of its own."""
    classes = (one for one in type(task).__mro__ if not one.__module__.startswith("celery.app."))
    return name in vars(task) or any(name in vars(one) for one in classes)
