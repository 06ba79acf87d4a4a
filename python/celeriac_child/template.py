"""The template: loads the app once, then forks a child whenever the worker asks for one."""

from __future__ import annotations

import gc
import os
import select
import signal
import socket
import sys
import traceback

from . import CELERY_BELOW, CELERY_FROM, PROTOCOL, doctor, failures
from .failures import LoadFailure
from .frames import Closed, ControlSocket, ProtocolError

EX_FAILURE = 1
EX_PROTOCOL = 70
EX_OSERR = 71
#: The same number on every architecture.
_SYS_PIDFD_OPEN = 434
ROLES = ("worker", "shared", "steward")
#: gevent puts another in its place, which reaps children before the template can.
_fork = os.fork


def main(descriptor: int, start: dict) -> None:
    """Answers `start` with `hello` or `failed`, then serves forks. Does not return."""
    diagnostics = os.dup(2)
    control = ControlSocket(socket.socket(fileno=descriptor))
    os.set_inheritable(descriptor, False)
    code = EX_FAILURE
    if start.get("look"):
        # What the app prints is no part of an answer.
        os.dup2(2, 1)
    try:
        # Before anything of the app is imported, for that may fail, or not come to an end.
        read = doctor.examine(os.getcwd()) if start.get("doctor") else None
        try:
            template = Template(control, start, read)
        except BaseException as error:
            failure = error if isinstance(error, LoadFailure) else failures.of_shim(error)
            control.send({**failure.frame(), "sources": read})
            return
        code = template.serve()
    except (Closed, BrokenPipeError, ConnectionResetError):
        pass
    except BaseException:
        os.write(diagnostics, traceback.format_exc().encode("utf-8", "backslashreplace"))
    finally:
        os._exit(code)


class Template:
    """The app in memory, and the children forked from it."""

    def __init__(self, control: ControlSocket, start: dict, read: dict | None = None):
        self.control = control
        self.pid = os.getpid()
        self.children = {}
        if start.get("protocol") != PROTOCOL:
            raise LoadFailure(
                "error",
                f"The worker speaks protocol {start.get('protocol')}, its Python part {PROTOCOL}.",
            )
        _patch(start.get("pool"))
        self._import_celery(start)
        from . import additions, app, child, coroutines, describe, exits, retries, schedules

        self.additions = additions
        self.child = child
        self.exits = exits
        app.enter_environment(start)
        self.app = app.load(start)
        changed = describe.changed(self.app)
        doing = f"starting a worker of {start['app']}"
        try:
            if start.get("look"):
                frame = describe.hello(self.app, app.look(self.app, start), [], changed)
                if start.get("schedule"):
                    frame.update(schedules.plan(self.app))
                control.send({**frame, "sources": read})
                return
            self.worker = app.make_worker(self.app, start)
            # Receivers of `celeryd_init` and `worker_init` may set settings.
            app.overrule(self.app, start)
            retries.apply(self.app)
            coroutines.adapt(self.app)
            frame = describe.hello(self.app, self.worker, app.banner(self.worker), changed)
            if start.get("schedule"):
                frame.update(schedules.apart(self.app))
        except LoadFailure:
            raise
        except BaseException as error:
            raise failures.of_app(error, doing) from error
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
            signal.signal(number, signal.SIG_IGN)
        control.send(frame)
        gc.collect()
        gc.freeze()

    def _import_celery(self, start: dict) -> None:
        # celery/utils/threads.py reads it when it is imported: a stack per thread, not per greenlet.
        # Where tasks share a process, each coroutine needs one.
        usual = os.environ.pop("USE_FAST_LOCALS", None)
        if start.get("pool") in (None, "prefork"):
            os.environ["USE_FAST_LOCALS"] = "1" if usual is None else usual
        try:
            import celery
        except ImportError as error:
            raise LoadFailure(
                "celery",
                f"Celery is not installed for {sys.executable}.",
                "Start the worker with the Python of the app's own virtual environment, or install it there.",
            ) from error
        version = getattr(celery, "VERSION", None)
        if version is None:
            raise LoadFailure("celery", f"{celery.__file__} is not Celery, but has its name.", "Rename it.")
        if not CELERY_FROM <= (version.major, version.minor) < CELERY_BELOW:
            raise LoadFailure(
                "celery",
                f"Celery {celery.__version__} is installed; celeriac runs apps of Celery 5.2 to 5.7.",
                "Install one of these versions for the app.",
            )
        try:
            import celery.apps.worker
            import celery.utils.threads
        except Exception as error:
            raise failures.of_celery(error, celery.__version__) from error
        os.environ.pop("USE_FAST_LOCALS", None)
        if usual is not None:
            os.environ["USE_FAST_LOCALS"] = usual

    def serve(self) -> int:
        """Forks and reaps until the worker says `exit`. Raises `Closed` when it is gone."""
        poll = select.poll()
        poll.register(self.control, select.POLLIN)
        while True:
            for descriptor, _ in poll.poll():
                if descriptor in self.children:
                    poll.unregister(descriptor)
                    self._reap(descriptor)
                    continue
                try:
                    frame, descriptors = self.control.receive()
                    if frame["op"] == "exit":
                        return 0
                    if frame["op"] == "tasks":
                        self.additions.apply(self.app, frame["tasks"])
                        continue
                    known = frame["op"] in ("fork", "become")
                    if not known or len(descriptors) != 4 or frame.get("role") not in ROLES:
                        raise ProtocolError(f"unknown frame {frame['op']!r}")
                except ProtocolError as error:
                    sys.__stderr__.write(f"celeriac: the worker broke the protocol: {error}\n")
                    return EX_PROTOCOL
                if frame["op"] == "become":
                    self._become(frame, descriptors)
                watch = self._fork(frame, descriptors)
                if watch is not None:
                    poll.register(watch, select.POLLIN)

    def _become(self, frame: dict, descriptors: list) -> None:
        """Is a child from now on. Does not return."""
        process = self.child.prepare(frame)
        if frame["role"] == "worker":
            process.name = f"SpawnPoolWorker-{frame['slot'] + 1}"
        self.exits.flush()
        self.control.close()
        self.child.start(process, self.worker, frame, descriptors, os.getppid())

    def _fork(self, frame: dict, descriptors: list) -> int | None:
        slot = frame["slot"]
        process = self.child.prepare(frame)
        self.exits.flush()
        try:
            pid = (_fork if "gevent" in sys.modules else os.fork)()
        except OSError as error:
            sys.__stderr__.write(f"celeriac: cannot fork a child: {error}\n")
            for descriptor in descriptors:
                os.close(descriptor)
            self._tell_exit(slot, 0, EX_OSERR, None, 0)
            return None
        if not pid:
            os.setpgid(0, 0)
            if "gevent" in sys.modules:
                sys.modules["gevent"].reinit()
            self.control.close()
            for descriptor in self.children:
                os.close(descriptor)
            self.child.start(process, self.worker, frame, descriptors, self.pid)
        try:
            os.setpgid(pid, pid)
        except OSError:
            pass
        for descriptor in descriptors:
            os.close(descriptor)
        watch = pidfd_open(pid)
        self.children[watch] = slot, pid
        self.control.send({"op": "forked", "slot": slot, "pid": pid}, [watch])
        return watch

    def _reap(self, watch: int) -> None:
        slot, pid = self.children.pop(watch)
        os.close(watch)
        try:
            _, status, usage = os.wait4(pid, 0)
        except ChildProcessError:
            # Code of the app waits for any process.
            self._tell_exit(slot, pid, None, None, 0)
            return
        ended = os.WIFEXITED(status)
        self._tell_exit(
            slot,
            pid,
            os.WEXITSTATUS(status) if ended else None,
            None if ended else os.WTERMSIG(status),
            usage.ru_maxrss * 1024,
        )

    def _tell_exit(self, slot: int, pid: int, code: int | None, number: int | None, memory_peak: int) -> None:
        self.control.send(
            {
                "op": "exit",
                "slot": slot,
                "pid": pid,
                "code": code,
                "signal": number,
                "memory_peak": memory_peak,
            }
        )


def _patch(pool: str | None) -> None:
    """Makes the standard library cooperate before anything else of the app is imported.

    celery/__init__.py:maybe_patch_concurrency, which looks at `-P`.
    """
    if pool != "gevent":
        return
    try:
        import gevent.monkey
    except ImportError as error:
        raise LoadFailure(
            "celery",
            f"-P gevent needs gevent, which is not installed for {sys.executable}.",
            "Install it in the app's environment, or choose -P threads.",
        ) from error
    gevent.monkey.patch_all()


def pidfd_open(pid: int) -> int:
    """`os.pidfd_open`, also for a Python that was built on a system without it."""
    try:
        return os.pidfd_open(pid)
    except AttributeError:
        import ctypes

        descriptor = ctypes.CDLL(None, use_errno=True).syscall(_SYS_PIDFD_OPEN, pid, 0)
        if descriptor < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number)) from None
        os.set_inheritable(descriptor, False)
        return descriptor
