"""Loads the user's Celery app and makes its `Worker`, as the `celery worker` command does."""

from __future__ import annotations

import logging
import os
import sys
from types import SimpleNamespace

import celery
from celery import concurrency
from celery.app.utils import find_app
from celery.utils.log import mlevel
from celery.utils.nodenames import default_nodename, host_format

from . import failures
from .failures import LoadFailure

#: What Celery's worker is told of pools that it does not know, for its banner and its signals.
_RELATED = {"asyncio": "threads"}


def load(start: dict):
    """The app named by `-A`, with the settings of the command line. Raises `LoadFailure`."""
    name = start.get("app")
    if not name:
        raise LoadFailure("app", "No app was named.", "Name it with -A, for example -A proj.celery_app.")
    _refuse_shadowed(name)
    try:
        app = find_app(name)
    except ModuleNotFoundError as error:
        raise _not_found(name, error) from error
    except AttributeError as error:
        raise _without_app(name, error) from error
    except BaseException as error:
        raise failures.of_app(error, f"importing {name}") from error
    if not isinstance(app, celery.Celery):
        kind = f"{type(app).__module__}.{type(app).__qualname__}"
        raise LoadFailure(
            "app",
            f"-A {name} names a {kind}, not a Celery app.",
            "Name the app after a colon, for example -A proj.tasks:celery_app.",
        )
    try:
        app.conf.finalize()
        overrule(app, start)
    except BaseException as error:
        raise failures.of_app(error, f"reading the settings of {name}") from error
    return app


def overrule(app, start: dict) -> None:
    """Sets what is stronger than the app's own settings."""
    conf = app.conf
    for name, value in (start.get("settings") or {}).items():
        _set(conf, name, value)
    for member, setting in (
        ("transport_options", "broker_transport_options"),
        ("result_options", "result_backend_transport_options"),
    ):
        if start.get(member):
            _set(conf, setting, {**(conf.get(setting) or {}), **start[member]})


def _set(conf, name: str, value) -> None:
    # Before Celery 5.7 a name with the app's prefix is stronger than one without, wherever it is set.
    for key in conf._to_keys(name):
        conf.changes[conf._key(key)] = value


def _refuse_shadowed(name: str) -> None:
    top = name.partition(":")[0].partition(".")[0]
    path = failures.shadowed(top)
    if path is None:
        return
    file = os.path.relpath(path)
    raise LoadFailure(
        "app",
        f"{file} cannot be imported: {top} is already the name of {failures.owner_of(top)}.",
        f"Rename {file}, for example to {top}_app{'.py' if file.endswith('.py') else ''}, and change -A.",
    )


def _not_found(name: str, error: ModuleNotFoundError) -> LoadFailure:
    module = name.partition(":")[0]
    missing = error.name or ""
    if ":" in missing:
        # find_app tries the whole name as a module when the attribute is missing.
        return _without_app(name, AttributeError())
    if module == missing or module.startswith(missing + "."):
        return LoadFailure(
            "app",
            f"The module {missing}, named by -A {name}, was not found from {os.getcwd()}.",
            "Start the worker in the folder that holds it, or give that folder with --workdir.",
        )
    return failures.of_app(error, f"importing {name}")


def _without_app(name: str, error: AttributeError) -> LoadFailure:
    if failures.place_of(error) is not None:
        return failures.of_app(error, f"importing {name}")
    module, _, attribute = name.partition(":")
    if attribute:
        text = f"The module {module} has no {attribute}, which -A {name} names."
    else:
        text = f"The module {module}, named by -A, holds no Celery app."
    return LoadFailure("app", text, "Name the app after a colon, for example -A proj.tasks:celery_app.")


def look(app, start: dict):
    """Stands for the worker of an app that is only looked at, as by Celery's commands beside `worker`: its
    modules are imported, and no signal of a worker is sent."""
    app.loader.import_default_modules()
    return SimpleNamespace(app=app, hostname=host_format(default_nodename(start.get("hostname"))))


def make_worker(app, start: dict):
    """A real `Worker` of the app without its steps, so that it neither connects nor starts a pool.

    What it does besides is Celery's (worker/worker.py and apps/worker.py, 5.2 to 5.7): imports of modules,
    tracer, queues, logging, and the signals `celeryd_init`, `worker_init` and `celeryd_after_setup`.
    """
    base = app.Worker

    class Worker(base):
        """The app's worker class with an empty blueprint; signals of the process are the worker's."""

        class Blueprint(base.Blueprint):
            default_steps = set()

        def install_platform_tweaks(self, worker):
            """Celery installs handlers for TERM, INT, HUP and more here."""

    Worker.__name__, Worker.__qualname__, Worker.__module__ = (
        base.__name__,
        base.__qualname__,
        base.__module__,
    )
    steps = app.steps["worker"]
    app.steps["worker"] = set()
    try:
        worker = Worker(**_worker_arguments(app, start))
        worker.on_start()
    finally:
        app.steps["worker"] = steps
    return worker


def _worker_arguments(app, start: dict) -> dict:
    options = dict(start.get("options") or {})
    for name in ("purge", "pidfile", "statedb"):
        options.pop(name, None)
    pool = start.get("pool") or app.conf.worker_pool
    pool = _RELATED.get(pool, pool)
    options.update(
        app=app,
        hostname=host_format(default_nodename(start.get("hostname"))),
        pool_cls=concurrency.get_implementation(pool),
        loglevel=mlevel(start.get("loglevel") or logging.WARNING),
        logfile=start.get("logfile"),
        queues=start.get("queues"),
        exclude_queues=start.get("exclude_queues"),
        concurrency=start.get("concurrency") or app.conf.worker_concurrency,
        no_color=not start.get("color", False),
        quiet=True,
    )
    return options


def banner(worker) -> list[str]:
    """The lines that the worker would print, apps/worker.py:emit_banner."""
    if not hasattr(worker, "autoscale"):
        # Set by a step, worker/autoscale.py:WorkerComponent.
        worker.autoscale = worker.options.get("autoscale")
    text = worker.startup_info(artlines=True) + (worker.extra_info() or "")
    return text.splitlines()


def enter_environment(start: dict) -> None:
    """What bin/celery.py:celery does with its options before the app is imported."""
    sys.argv = list(start.get("argv") or ["celery", "worker"])
    for member, variable in (
        ("broker_url", "CELERY_BROKER_URL"),
        ("result_backend", "CELERY_RESULT_BACKEND"),
    ):
        if start.get(member):
            os.environ[variable] = start[member]
    folder = os.getcwd()
    if folder not in sys.path:
        sys.path.insert(0, folder)
