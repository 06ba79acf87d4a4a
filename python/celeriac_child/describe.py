"""Describes a loaded app to the worker: the members of `hello`."""

from __future__ import annotations

import inspect
import math
import os
import platform
import sys
import threading
from collections.abc import Mapping
from datetime import timedelta
from importlib import metadata

import billiard
import celery
import kombu
from celery import signals
from celery.app.defaults import _TO_NEW_KEY, DEFAULTS
from celery.utils.imports import qualname

from . import PROTOCOL, results, schedules
from .coroutines import is_coroutine

#: Signals that Celery sends from its main process.
_MAIN_SIGNALS = (
    "task_received",
    "task_revoked",
    "task_rejected",
    "task_unknown",
    "heartbeat_sent",
    "worker_ready",
    "worker_shutting_down",
    "worker_shutdown",
)
_CELERY_REQUEST = "celery.worker.request:Request"
_CELERY_STRATEGY = "celery.worker.strategy:default"
#: What settings began with before Celery 4.
_OLD_PREFIXES = ("CELERY_", "CELERYD_", "CELERYBEAT_", "BROKER_")
#: Depth at which a nested setting is no longer described but shown.
_DEPTH_MAX = 12


def hello(app, worker, banner: list[str], changed_first: list[str]) -> dict:
    """The frame `hello`."""
    return {
        "op": "hello",
        "protocol": PROTOCOL,
        "pid": os.getpid(),
        "python": platform.python_version(),
        "celery": celery.__version__,
        "kombu": kombu.__version__,
        "billiard": billiard.__version__,
        "redis": _version("redis"),
        "app": app.main or "__main__",
        "hostname": worker.hostname,
        "threads": [thread.name for thread in threading.enumerate() if thread is not threading.main_thread()],
        "broker_url": _broker_url(app),
        "result_backend": _plain(app.conf.result_backend),
        "backend": _backend(app),
        "queues": _queues(app),
        "settings": {name: plain(_setting(app, name)) for name in _setting_names(app)},
        # The worker itself lists every task's module in this setting, worker/worker.py:setup_includes.
        "changed": [name for name in changed(app) if name != "include" or name in changed_first],
        "unknown": {name: plain(value) for name, value in sorted(unknown(app).items())},
        "tasks": {name: _task(task) for name, task in sorted(app.tasks.items())},
        "receivers": [name for name in _MAIN_SIGNALS if getattr(signals, name).receivers],
        "steps": sorted(_dotted(step) for kind in ("worker", "consumer") for step in app.steps[kind]),
        "banner": banner,
        "zone": schedules.zone(app),
    }


def plain(value, depth: int = 0):
    """A setting as JSON has it; what JSON has no word for is shown as `{"repr": …}`."""
    if value is None or isinstance(value, (bool, str)):
        return value if type(value) in (type(None), bool, str) else str(value)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else {"repr": repr(value)}
    if isinstance(value, timedelta):
        return value.total_seconds()
    if depth < _DEPTH_MAX:
        if isinstance(value, (list, tuple)):
            return [plain(item, depth + 1) for item in value]
        if isinstance(value, (set, frozenset)) and all(isinstance(item, str) for item in value):
            return sorted(value)
        if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
            return {key: plain(item, depth + 1) for key, item in value.items()}
    return {"repr": _repr(value)}


def changed(app) -> list[str]:
    """Names of the settings that do not come from Celery's defaults, under whatever name they were given."""
    conf = app.conf
    # As app/utils.py:Settings.value_set_for of 5.7.
    own = type(conf)({}, conf.maps[:-1], conf._keys, conf.prefix)
    names = [name for name in _setting_names(app) if name in own]
    for name in ("broker_url", "result_backend"):
        if name not in names and os.environ.get(f"CELERY_{name.upper()}"):
            names.append(name)
    return sorted(names)


def unknown(app) -> dict:
    """What the app sets beside the settings of this Celery, by name, with what is there for other ends.

    Under a prefix (Django's `CELERY_`) names are as Celery would write them.
    """
    conf = app.conf
    own = conf.without_defaults()
    prefix = conf.prefix or ""
    found = {}
    for name in own:
        if not isinstance(name, str) or name.startswith("_"):
            continue
        if prefix:
            if not name.startswith(prefix):
                continue
            known = name[len(prefix) :].lower()
        elif name.islower() or name.startswith(_OLD_PREFIXES):
            known = name
        else:
            continue
        value = own[name]
        if known in DEFAULTS or known in _TO_NEW_KEY or known == "deprecated_settings":
            continue
        if not callable(value) and not inspect.ismodule(value):
            found[known] = value
    return found


def _setting_names(app) -> list[str]:
    own = app.conf.without_defaults()
    # A module or object of settings has more in it, such as the methods of Django's.
    names = {name for name in own if isinstance(name, str) and name.islower() and not callable(own[name])}
    names.discard("deprecated_settings")
    prefix = app.conf.prefix
    if prefix:
        names = {name[len(prefix) :] if name.startswith(prefix.lower()) else name for name in names}
    return sorted(name for name in names | set(DEFAULTS) if not name.startswith("_"))


def _setting(app, name: str):
    """Some settings are properties (the broker's URL, the time zone), which look at the environment too."""
    if name == "timezone":
        zone = app.conf.timezone
        return zone if zone is None else str(zone)
    if isinstance(getattr(type(app.conf), name, None), property):
        return getattr(app.conf, name)
    return app.conf.get(name)


def _broker_url(app) -> str | None:
    url = app.conf.broker_read_url
    if isinstance(url, (list, tuple)):
        return ";".join(url)
    # Without one, or with a host alone, the URL is made from parts (`broker_host` and the like).
    return url if url and "://" in url else app.connection_for_read().as_uri(include_password=True)


def _backend(app) -> dict:
    backend = app.backend
    prefix = getattr(backend, "task_keyprefix", None)
    return {
        "class": qualname(backend),
        "serializer": getattr(backend, "serializer", None) or "",
        "expires": plain(getattr(backend, "expires", None)),
        "prefix": prefix.decode("utf-8", "replace") if isinstance(prefix, bytes) else prefix or "",
        # Only the backend itself gives failures another age.
        "own": results.is_own(backend) or app.conf.get("result_failure_expires") is not None,
    }


def _queues(app) -> list[dict]:
    return [
        {
            "name": name,
            "exchange": queue.exchange.name if queue.exchange else "",
            "type": queue.exchange.type if queue.exchange else "direct",
            "routing_key": queue.routing_key or "",
            "priority_max": plain(queue.max_priority),
        }
        for name, queue in app.amqp.queues.consume_from.items()
    ]


def _task(task) -> dict:
    acks = task.acks_on_failure_or_timeout
    return {
        "acks_late": bool(task.acks_late),
        "acks_on_failure": bool(getattr(task, "acks_on_failure", acks)),
        "acks_on_timeout": bool(getattr(task, "acks_on_timeout", acks)),
        "reject_on_worker_lost": bool(task.reject_on_worker_lost),
        "rate_limit": plain(task.rate_limit),
        "time_limit": plain(task.time_limit),
        "soft_time_limit": plain(task.soft_time_limit),
        "ignore_result": bool(task.ignore_result),
        "track_started": bool(task.track_started),
        "store_errors": bool(task.store_errors_even_if_ignored),
        "max_retries": plain(task.max_retries),
        "queue": _plain(getattr(task, "queue", None)),
        # app/autoretry.py:add_autoretry_behaviour
        "autoretry": hasattr(task, "_orig_run"),
        "send_events": bool(task.send_events),
        "request": _unless(task.Request, _CELERY_REQUEST),
        "strategy": _unless(task.Strategy, _CELERY_STRATEGY),
        "coroutine": is_coroutine(task),
    }


def _unless(name, usual: str) -> str | None:
    """The dotted name of a class or function, null when it is Celery's own."""
    dotted = name.replace(":", ".") if isinstance(name, str) else _dotted(name)
    return None if dotted == usual.replace(":", ".") else dotted


def _dotted(thing) -> str:
    if isinstance(thing, str):
        return thing.replace(":", ".")
    thing = thing if inspect.isclass(thing) or inspect.isroutine(thing) else type(thing)
    # bootsteps.py:StepType puts the module into the qualified name.
    return f"{thing.__module__}.{thing.__qualname__.replace(thing.__module__ + '.', '', 1)}"


def _plain(value) -> str | None:
    return value if value is None or isinstance(value, str) else _repr(value)


def _repr(value) -> str:
    try:
        return repr(value)
    except Exception:
        return f"<{type(value).__name__}>"


def _version(name: str) -> str | None:
    module = sys.modules.get(name)
    version = getattr(module, "__version__", None)
    if isinstance(version, str):
        return version
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
