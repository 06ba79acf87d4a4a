"""The entries in the file of `celery.beat.PersistentScheduler` (celery/beat.py 5.7; a `shelve`)."""

from __future__ import annotations

import dbm
import os
import shelve

from celeriac_child.imports import Unreadable, instant

#: What the kinds of `dbm` append to the name (celery/beat.py 5.7, `PersistentScheduler.known_suffixes`).
SUFFIXES = (".db", ".dat", ".dir", ".bak")


def read(asked: dict):
    """The entries, each with when it ran last and how often."""
    try:
        from celery import current_app
        from celery.app.utils import find_app
    except ImportError as error:
        raise Unreadable(
            f"this Python has no Celery: {error}",
            "name the Python of the app's environment with --python",
        ) from None
    app = find_app(asked["app"]) if asked["app"] else current_app._get_current_object()
    app.set_current()
    from celeriac_child import schedules

    kept, zone = _kept(asked["source"])
    for name, entry in kept.items():
        line = {"name": str(name), "zone": zone}
        try:
            given = {"args": entry.args, "kwargs": entry.kwargs, "options": entry.options}
            line["entry"] = schedules.document(app, str(name), entry.task, entry.schedule, given)
            line["last"] = instant(entry.last_run_at)
            line["runs"] = int(entry.total_run_count or 0)
        except schedules.Refused as refused:
            line = {"name": str(name), "refused": str(refused)}
        except Exception as error:  # an entry that Celery itself would fail at
            line = {"name": str(name), "refused": f"{type(error).__name__}: {error}"}
        yield line


def _kept(path: str) -> tuple[dict, str | None]:
    """The entries by name, and the zone that they were kept for."""
    name = _name(path)
    try:
        with shelve.open(name, flag="r") as store:
            if "entries" not in store:
                raise Unreadable(f"{path} has no entries: it is no file of Celery's beat")
            zone = store.get("tz")
            return dict(store["entries"]), zone if isinstance(zone, str) else None
    except Unreadable:
        raise
    except dbm.error as error:
        raise Unreadable(
            f"{path}: {error}",
            "read it with the Python that beat runs with, and not while beat writes it",
        ) from None
    except Exception as error:
        raise Unreadable(
            f"{path}: its entries cannot be read: {type(error).__name__}: {error}",
            "give the app with -A and its Python with --python: entries may name its classes",
        ) from None


def _name(path: str) -> str:
    """The name that `shelve` wants, which may be without the file's suffix."""
    base, suffix = os.path.splitext(path)
    for name in [path] + ([base] if suffix in SUFFIXES else []):
        if dbm.whichdb(name):
            return name
    there = any(os.path.exists(path + suffix) for suffix in ("",) + SUFFIXES)
    if not there:
        raise Unreadable(f"{path}: there is no such file", "name the file of `celery beat -s`")
    raise Unreadable(f"{path} is no file that this Python's `dbm` can read", "see `python -m dbm`")
