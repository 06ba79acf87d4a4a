"""The entries of an app's `beat_schedule`, as JSON has them.

celery/beat.py 5.7: `Scheduler._maybe_entry`, `ScheduleEntry`, `Scheduler.apply_async`;
celery/schedules.py: `maybe_schedule`, `schedule`, `crontab`, `solar`. What only Python can decide is
refused, each entry with its reason.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from datetime import date, datetime, timedelta

from celery.schedules import crontab, maybe_schedule, schedule, solar

try:
    from celery.beat import BeatLazyFunc
except ImportError:  # before 5.1

    class BeatLazyFunc:  # type: ignore[no-redef]
        """Nothing is one."""


class Refused(Exception):
    """Why an entry cannot be sent by a beat that is not in Python."""


def entries(app) -> list[dict]:
    """Every entry of the app: `{"name", "entry"}` or `{"name", "refused"}`."""
    found = []
    schedules = app.conf.beat_schedule or {}
    if not isinstance(schedules, Mapping):
        kind = type(schedules).__name__
        return [{"name": "beat_schedule", "refused": f"beat_schedule is a {kind}, not a dict of entries"}]
    for name, given in list(schedules.items()):
        name = str(name)
        try:
            found.append({"name": name, "entry": _entry(app, name, dict(given))})
        except Refused as refused:
            found.append({"name": name, "refused": str(refused)})
        except Exception as error:  # an entry that Celery itself would fail at
            found.append({"name": name, "refused": f"{type(error).__name__}: {error}"})
    return found


def zone(app) -> str | None:
    """The zone of the app's clock, by its IANA name; `None` if it has none that can be told."""
    key = getattr(app.timezone, "key", None) or getattr(app.timezone, "zone", None)
    if key and key != "local":
        return str(key)
    name = str(app.timezone)
    if name == "UTC":
        return name
    return _local_zone()


def _local_zone() -> str | None:
    """The machine's zone."""
    name = os.environ.get("TZ", "").lstrip(":")
    if not name:
        path = os.path.realpath("/etc/localtime")
        name = path.partition("/zoneinfo/")[2]
    return name or None


def _entry(app, name: str, given: dict) -> dict:
    task = given.get("task")
    if not isinstance(task, str):
        raise Refused("it names no task")
    when = maybe_schedule(given.get("schedule"), given.get("relative", False), app=app)
    return document(app, name, task, when, given)


def document(app, name: str, task: str, when, given: Mapping) -> dict:
    """An entry with the arguments and options that are given; raises `Refused`."""
    return {
        "name": name,
        "task": task,
        "schedule": _schedule(when),
        "args": _plain("args", list(given.get("args") or ())),
        "kwargs": _plain("kwargs", dict(given.get("kwargs") or {})),
        "options": _plain("options", _options(app, task, dict(given.get("options") or {}))),
        **_deadline(app, when),
    }


def _deadline(app, when) -> dict:
    """What `beat_cron_starting_deadline` makes of a crontab (schedules.py:crontab.is_due)."""
    seconds = app.conf.get("beat_cron_starting_deadline")
    if seconds is None or type(when) is not crontab:
        return {}
    return {"misfire": "skip", "misfire_grace": float(seconds)}


def _schedule(when) -> dict:
    # A class of the app's own may decide otherwise: only these themselves.
    if type(when) is schedule:
        return {"type": "interval", "every": when.run_every.total_seconds(), "relative": bool(when.relative)}
    if type(when) is crontab:
        if when.nowfun is not None:
            raise Refused("its crontab has a `nowfun`, a clock of its own")
        fields = ("minute", "hour", "day_of_week", "day_of_month", "month_of_year")
        return {"type": "crontab", **{field: _field(getattr(when, f"_orig_{field}")) for field in fields}}
    if type(when) is solar:
        return {"type": "solar", "event": when.event, "lat": float(when.lat), "lon": float(when.lon)}
    if when is None:
        raise Refused("it has no schedule")
    raise Refused(f"its schedule is a {type(when).__module__}.{type(when).__qualname__}, which decides in Python")


def _field(value) -> str:
    """A field of a crontab as text: numbers, text, or a collection of them."""
    if isinstance(value, (str, int)):
        return str(value)
    return ",".join(str(item) for item in sorted(value))


def _options(app, name: str, options: dict) -> dict:
    """The options of a run: the task's own, then the entry's (`Task.apply_async`)."""
    task = app.tasks.get(name)
    own = task._get_exec_options() if task is not None else {}
    given = {key: value for key, value in {**own, **options}.items() if value is not None}
    merged = {**given, **_route(app, name, given)}
    if merged.get("link") or merged.get("link_error"):
        for key in ("link", "link_error"):
            merged[key] = [dict(one) for one in _listed(merged.get(key))]
    return merged


def _route(app, name: str, options: dict) -> dict:
    """What the app's routes add to the options of a run (app/routes.py:Router.route)."""
    queues = app.amqp.queues
    known = set(queues)
    try:
        routed = dict(app.amqp.router.route(dict(options), name, (), {}, app.tasks.get(name)))
    except Exception as error:  # a router of the app's own
        raise Refused(f"its route: {type(error).__name__}: {error}") from error
    finally:
        # A queue that is only named becomes one of the app's, and its workers would consume it.
        for new in set(queues) - known:
            queues.pop(new, None)
    queue = routed.pop("queue", None)
    if "exchange" in options or "routing_key" in options or queue is None:
        pass
    elif getattr(queue.exchange, "type", "direct") == "direct":
        if "queue" in options or queue.name != app.conf.task_default_queue:
            routed["queue"] = queue.name
    else:
        # app/amqp.py:send_task_message: such a queue is called by its exchange.
        routed["exchange"], routed["routing_key"] = queue.exchange.name, queue.routing_key
    return {key: value for key, value in routed.items() if value is not None}


def task_options(app, name: str) -> dict:
    """What a run of a task has beside the options that it is called with; nothing where JSON has no word for it."""
    try:
        return _plain("options", _options(app, name, {}))
    except Exception:  # it is refused where it is used
        return {}


def _listed(value) -> list:
    if value is None:
        return []
    return list(value) if isinstance(value, (list, tuple)) and not isinstance(value, Mapping) else [value]


def _plain(what: str, value, depth: int = 0):
    """A value as JSON has it; what would be another in Python again is refused."""
    if depth > 32:
        raise Refused(f"{what} is nested too deep")
    if isinstance(value, BeatLazyFunc):
        raise Refused(f"{what} has a BeatLazyFunc, which Python has to call at each run")
    if value is None or isinstance(value, (bool, int, float, str)):
        json.dumps(value, allow_nan=False)
        return value
    if isinstance(value, timedelta):
        if what.startswith("options"):
            return value.total_seconds()
        raise Refused(f"{what} has a timedelta")
    if isinstance(value, datetime) and what.startswith("options"):
        return value.isoformat()
    if isinstance(value, (datetime, date)):
        raise Refused(f"{what} has a date, which only Python writes as Celery's JSON does")
    if isinstance(value, Mapping):
        if not all(isinstance(key, str) for key in value):
            raise Refused(f"{what} has a key that is no text")
        return {key: _plain(f"{what}.{key}", item, depth + 1) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(f"{what}[{at}]", item, depth + 1) for at, item in enumerate(value)]
    name = getattr(value, "name", None)
    if what in ("options.queue", "options.exchange") and isinstance(name, str):
        return name
    raise Refused(f"{what} is a {type(value).__qualname__}, which JSON has no word for")
