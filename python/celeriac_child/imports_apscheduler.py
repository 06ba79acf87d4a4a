"""The jobs in a store of APScheduler 3 (apscheduler/jobstores/sqlalchemy.py and redis.py, 3.10 and 3.11).

Its own job stores create their table and delete each job whose function cannot be imported; so the pickles are
read here, with the classes of its triggers only.
"""

from __future__ import annotations

import math
import os
import pickle

from celeriac_child.imports import Unreadable, instant

#: How many jobs are fetched at a time.
PAGE = 500
#: What helps when a package is missing.
OTHER = "name the Python of the application's environment with --python"
#: How deep an argument may be nested.
DEPTH_MAX = 32


class Refused(Exception):
    """Why a job has no equivalent."""


def read(asked: dict):
    """The jobs, each with its trigger in words of APScheduler."""
    try:
        import apscheduler
    except ImportError as error:
        raise Unreadable(
            f"this Python has no APScheduler: {error}",
            OTHER,
        ) from None
    version = str(getattr(apscheduler, "version", "3"))
    if not version.startswith("3"):
        raise Unreadable(f"it is APScheduler {version}; version 3 can be read")
    source = asked["source"]
    is_redis = source.split(":")[0] in ("redis", "rediss", "unix")
    pages = _of_redis(source, asked["jobs_key"]) if is_redis else _of_sql(source, asked["table"])
    for name, state in pages:
        try:
            yield _line(name, _state(state))
        except Refused as refused:
            yield {"name": name, "refused": str(refused)}


def _of_sql(url: str, table: str):
    try:
        import sqlalchemy
        from sqlalchemy.engine import make_url
    except ImportError as error:
        raise Unreadable(f"this Python has no SQLAlchemy: {error}", OTHER) from None
    try:
        place = make_url(url)
    except Exception:
        # Its text may have the password.
        text = "SQLAlchemy does not understand the URL"
        raise Unreadable(text, "write sqlite:///jobs.db or redis://host/0") from None
    path = place.database or ""
    # SQLite would make the file.
    if place.drivername.startswith("sqlite") and not path.startswith("file:") and not os.path.exists(path):
        hint = "a path follows sqlite:///, so an absolute one begins with sqlite:////"
        raise Unreadable(f"{path or 'memory'}: there is no such file", hint)
    try:
        engine = sqlalchemy.create_engine(place)
        quote = engine.dialect.identifier_preparer.quote
        name = ".".join(quote(part) for part in table.split("."))
        query = sqlalchemy.text(f"SELECT id, job_state FROM {name} ORDER BY id")
        with engine.connect() as connection:
            rows = connection.execution_options(stream_results=True).execute(query)
            while True:
                page = rows.fetchmany(PAGE)
                if not page:
                    break
                for key, state in page:
                    yield str(key), bytes(state)
    except sqlalchemy.exc.SQLAlchemyError as error:
        cause = getattr(error, "orig", None) or error
        raise Unreadable(f"table {table}: {cause}", "name another table with --table") from None
    except ImportError as error:
        raise Unreadable(f"this Python has no driver for the URL: {error}", OTHER) from None


def _of_redis(url: str, jobs_key: str):
    try:
        import redis
    except ImportError as error:
        raise Unreadable(f"this Python has no redis: {error}", OTHER) from None
    try:
        client = redis.Redis.from_url(url, socket_connect_timeout=10, socket_timeout=30)
        if not client.exists(jobs_key):
            hint = "name the key with --jobs-key, and the database in the URL"
            raise Unreadable(f"there is no key {jobs_key}", hint)
        # A walk may meet one twice while others write.
        seen = set()
        for key, state in client.hscan_iter(jobs_key, count=PAGE):
            if key not in seen:
                seen.add(key)
                yield key.decode("utf-8", "replace"), state
    except redis.RedisError as error:
        raise Unreadable(f"Redis: {error}", away=True) from None


def _state(pickled: bytes) -> dict:
    """What a job is (apscheduler/job.py 3.11, `Job.__getstate__`)."""
    try:
        state = pickle.loads(pickled)
    except Exception as error:
        raise Refused(f"it cannot be unpickled: {type(error).__name__}: {error}") from None
    if not isinstance(state, dict) or state.get("version", 1) > 1:
        raise Refused("it is no job of APScheduler 3")
    return state


def _line(name: str, state: dict) -> dict:
    return {
        "name": name,
        "function": str(state["func"]),
        "title": str(state.get("name") or ""),
        "args": _plain("args", list(state.get("args") or ())),
        "kwargs": _plain("kwargs", dict(state.get("kwargs") or {})),
        "trigger": _trigger(state["trigger"]),
        "grace": state.get("misfire_grace_time"),
        "coalesce": bool(state.get("coalesce")),
        "instances": state.get("max_instances"),
        "next": instant(state.get("next_run_time")),
    }


def _trigger(trigger) -> dict:
    from apscheduler.triggers.cron import CronTrigger
    from apscheduler.triggers.date import DateTrigger
    from apscheduler.triggers.interval import IntervalTrigger

    # A class of the application's own may decide otherwise: only these themselves.
    kind = type(trigger)
    if kind is DateTrigger:
        return {"type": "date", "at": instant(trigger.run_date)}
    if kind is IntervalTrigger:
        told = {"type": "interval", "every": trigger.interval.total_seconds()}
    elif kind is CronTrigger:
        told = {"type": "cron", "fields": {field.name: str(field) for field in trigger.fields}}
    else:
        raise Refused(f"its trigger is a {kind.__module__}.{kind.__qualname__}, which has no equivalent")
    told["zone"] = _zone(trigger.timezone)
    told["start"] = instant(trigger.start_date)
    told["end"] = instant(trigger.end_date)
    told["jitter"] = getattr(trigger, "jitter", None)
    return told


def _zone(zone) -> str:
    """The name of a zone; an offset has only its text."""
    return str(getattr(zone, "key", None) or getattr(zone, "zone", None) or zone)


def _plain(what: str, value, depth: int = 0):
    """A value as JSON has it; what would be another in Python again is refused."""
    if depth > DEPTH_MAX:
        raise Refused(f"{what} is nested too deep")
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        return {key: _plain(f"{what}.{key}", item, depth + 1) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(f"{what}[{at}]", item, depth + 1) for at, item in enumerate(value)]
    raise Refused(f"{what} is a {type(value).__qualname__}, which JSON has no word for")
