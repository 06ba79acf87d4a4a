"""The entries of an app's `beat_schedule`, as JSON has them.

celery/beat.py 5.7: `Scheduler._maybe_entry`, `ScheduleEntry`, `Scheduler.apply_async`;
celery/schedules.py: `maybe_schedule`, `schedule`, `crontab`, `solar`. What only Python can decide is
refused, each entry with its reason.
"""

from __future__ import annotations

import json
import os
import traceback
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


def plan(app) -> dict:
    """What a beat has to know of the app, for `hello`."""
    return {
        "schedule": entries(app),
        "task_options": {name: found for name in sorted(app.tasks) if (found := task_options(app, name))},
        "redbeat": redbeat(app),
    }


def apart(app) -> dict:
    """The same, found out in a process of its own: routers are code of the app, and what they open is not for
    children that are forked after it."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.close(reading)
            with os.fdopen(writing, "w", encoding="utf-8") as out:
                json.dump(plan(app), out)
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    os.close(writing)
    with os.fdopen(reading, encoding="utf-8") as told:
        found = told.read()
    if os.waitpid(child, 0)[1] != 0:
        raise RuntimeError("what beat has to know of the app cannot be found out; the reason is above")
    return json.loads(found)


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
        "options": _plain("options", _options(app, task, given)),
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


def _options(app, name: str, given: Mapping) -> dict:
    """The options of a run: the task's own, then the entry's (`Task.apply_async`), then the app's route."""
    task = app.tasks.get(name)
    own = task._get_exec_options() if task is not None else {}
    merged = {key: value for key, value in {**own, **(given.get("options") or {})}.items() if value is not None}
    merged = _routed(app, name, merged, given)
    if merged.get("link") or merged.get("link_error"):
        for key in ("link", "link_error"):
            merged[key] = [dict(one) for one in _listed(merged.get(key))]
    return merged


def _routed(app, name: str, options: dict, given: Mapping) -> dict:
    """The options with where they lead (app/routes.py:Router.route)."""
    queues = app.amqp.queues
    known = set(queues)
    args, kwargs = list(given.get("args") or ()), dict(given.get("kwargs") or {})
    try:
        routed = dict(app.amqp.router.route(dict(options), name, args, kwargs, app.tasks.get(name)))
    except Exception as error:  # a router of the app's own
        raise Refused(f"its route: {type(error).__name__}: {error}") from error
    finally:
        # A queue that is only named becomes one of the app's, and its workers would consume it.
        for new in set(queues) - known:
            queues.pop(new, None)
    queue = routed.pop("queue", None)
    if queue is not None:
        _way(app, routed, queue)
        if routed.get("queue") == app.conf.task_default_queue and "queue" not in options:
            del routed["queue"]
    return {key: value for key, value in routed.items() if value is not None}


def _way(app, routed: dict, queue) -> None:
    """A queue of a direct exchange is called by its name, others by their exchange
    (app/amqp.py:AMQP._create_task_sender)."""
    exchange, key = routed.get("exchange"), routed.get("routing_key")
    kind = routed.get("exchange_type") or getattr(queue.exchange, "type", None) or "direct"
    if kind == "direct" and not (exchange and key):
        routed.pop("exchange", None)
        routed.pop("routing_key", None)
        routed["queue"] = queue.name
    elif exchange is None:
        routed["exchange"] = queue.exchange.name or app.conf.task_default_exchange
        routed["routing_key"] = key or queue.routing_key or app.conf.task_default_routing_key


def task_options(app, name: str) -> dict:
    """What a run of a task has beside what it is called with: where a router needs that too, what the task says
    of itself."""
    try:
        return _plain("options", _options(app, name, {}))
    except Refused:
        task = app.tasks[name]
        own = {key: value for key, value in task._get_exec_options().items() if value is not None}
        try:
            return _plain("options", own)
        except Refused:
            return {}


def redbeat(app) -> dict:
    """Where RedBeat keeps the app's entries (redbeat/schedulers.py 2.4, `RedBeatConfig`)."""
    conf = app.conf
    given = {str(name).upper() for name in conf.keys()}

    def setting(name: str, usual):
        value = conf.first(name, name.upper())
        return value if name.upper() in given else value or usual

    prefix = str(setting("redbeat_key_prefix", "redbeat:"))
    lock = setting("redbeat_lock_key", f"{prefix}:lock")
    if lock and not str(lock).startswith(prefix):
        lock = f"{prefix}{lock}"
    url = setting("redbeat_redis_url", None)
    return {"prefix": prefix, "lock": str(lock) if lock else None, "url": str(url) if url else None}


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
