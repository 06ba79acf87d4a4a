"""What every seed's scenes are made of: workers of a mode, deadlines, a transcript without chance.

It runs in the app's own environment, with nothing but the standard library and that app's Celery.
`run.py` says by environment variables which mode it is, where the program and the folders are.
A scene says lines; the same scene must say the same lines whoever ran its tasks.
"""

import contextlib
import gc
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback

MODES = {"stock": ["stock"], "celeriac": ["celeriac"], "mixed": ["stock", "celeriac"]}
MODE = os.environ.get("SEED_MODE", "stock")
CELERIAC = os.environ.get("SEED_CELERIAC", "celeriac")
WORK = pathlib.Path(os.environ.get("SEED_WORK", "."))
SCENE_SECONDS = int(os.environ.get("SEED_SCENE_SECONDS", "90"))

_scenes = []
_lines = []
_ids = {}


class Late(AssertionError):
    """A condition did not come true before its deadline."""


def scene(name, not_yet=None, on_purpose=None, own_workers=False, whole_fleet=False):
    """Registers a scene. `not_yet`: why celeriac cannot play it; the runner fails when it can.

    `on_purpose`: why celeriac plays it otherwise, and will (`run.py` reads both from the source). With
    `own_workers` the scene starts its workers itself, and no others run meanwhile; for one with
    `whole_fleet` all workers consume all queues.
    """
    del not_yet, on_purpose

    def register(function):
        _scenes.append((name, function, "own" if own_workers else "whole" if whole_fleet else "any"))
        return function

    return register


def say(*parts):
    """Adds a line to the transcript."""
    _lines.append(plain(" ".join(part if isinstance(part, str) else show(part) for part in parts)))


def show(value):
    """A value with its mappings in the order of their keys."""
    return json.dumps(value, sort_keys=True, default=repr)


_PATTERNS = [
    (re.compile(r"w[12]@seed"), "<worker>"),
    (re.compile(r"gen\d+@[\w.-]+"), "<client>"),
    (re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d([.,]\d+)?(\+00:00|Z)?"), "<time>"),
    (re.compile(r"ForkPoolWorker-\d+"), "<child>"),
    (re.compile(r"0x[0-9a-f]{6,}"), "<address>"),
    (re.compile(r"redis://(?::\*\*@)?(localhost|127\.0\.0\.1):\d+"), "redis://<server>"),
    (re.compile(r"succeeded in [\d.e-]+s"), "succeeded in <seconds>"),
    (re.compile(re.escape(socket.gethostname())), "<host>"),
]
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


def plain(text):
    """The text without what differs from run to run; identifiers are numbered as they come."""
    text = _UUID.sub(lambda found: _ids.setdefault(found[0], f"<id {len(_ids) + 1}>"), text)
    for pattern, word in _PATTERNS:
        text = pattern.sub(word, text)
    return text


def until(what, condition, seconds=20.0):
    """Waits for a condition and gives its value; late is an error that says for what."""
    deadline = time.monotonic() + seconds
    tick = threading.Event()
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise Late(f"after {seconds:g} s still not: {what}")
        tick.wait(0.02)
    return value


def end(result, seconds=30.0):
    """Waits until a task is over, and gives its state."""
    until(f"the end of {result.id} ({result.state})", lambda: result.ready(), seconds)
    return result.state


def outcome(label, result, seconds=30.0):
    """Says how a task ended: its state and its value or exception."""
    end(result, seconds)
    say(f"{label}: {result.state}", show(result.result) if result.successful() else repr(result.result))


def document(label, result, hide=("traceback",)):
    """Says the stored result as other programs read it."""
    stored = result.backend.get(result.backend.get_key_for_task(result.id))
    said = {key: ("<hidden>" if value and key in hide else value)
            for key, value in json.loads(stored).items()
            if key != "celeriac"}  # celeriac adds one member of its own, which Celery passes over
    say(f"{label}:", said)


# -- workers ---------------------------------------------------------------------------------------


class Worker:
    """A worker process of one kind; its node is named alike in all modes."""

    running = []

    def __init__(self, app, kind, number, *arguments):
        self.node = f"w{number}@seed"
        self.kind = kind
        self.log = WORK / f"{kind}-{number}-{len(list(WORK.glob('*.log')))}.log"
        python = sys.executable
        head = [python, "-m", "celery", "-A", app] if kind == "stock" else [
            CELERIAC, "-A", app, "--python", python]
        self.argv = [*head, "worker", "-n", self.node, *arguments]
        self.process = None

    def start(self, **variables):
        """Starts it with more variables; None takes one away."""
        # Until celeriac takes a result backend of its own, only Python hears of it (sitecustomize).
        ours = dict(os.environ)
        if self.kind == "celeriac" and ours["CELERY_RESULT_BACKEND"] != ours["CELERY_BROKER_URL"]:
            ours["SEED_RESULT_BACKEND"] = ours.pop("CELERY_RESULT_BACKEND")
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                self.argv, env={name: value for name, value in {**ours, **variables}.items()
                                if value is not None}, stdin=subprocess.DEVNULL, stdout=log,
                stderr=subprocess.STDOUT)
        Worker.running.append(self)
        return self

    def text(self):
        return self.log.read_text(errors="replace")

    def wait_ready(self, seconds=60.0):
        def ready():
            if self.process.poll() is not None:
                raise AssertionError(f"{self.kind} ended with {self.process.returncode}:\n{self.text()}")
            return f"{self.node} ready" in self.text()

        until(f"{self.kind} worker is ready", ready, seconds)

    def stop(self, seconds=40.0):
        """TERM, and the exit code."""
        if self in Worker.running:
            Worker.running.remove(self)
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise Late(f"{self.kind} did not stop:\n{self.text()[-2000:]}") from None

    def kill(self):
        """KILL: what a power cut leaves."""
        if self in Worker.running:
            Worker.running.remove(self)
        self.process.kill()
        self.process.wait()


@contextlib.contextmanager
def workers(app, *arguments, kinds=None, any_code=False, leave=()):
    """The workers of this mode, ready; at the end they must stop by TERM with code 0.

    The stock worker of a mixed fleet leaves the queues of `leave` to celeriac.
    """
    started = [
        Worker(app, kind, number, *arguments, *(["-X", ",".join(leave)] if leave and kind == "stock" else []))
        for number, kind in enumerate(kinds or MODES[MODE], 1)]
    for worker in started:
        worker.start()
    try:
        for worker in started:
            worker.wait_ready()
        yield started
    finally:
        codes = [worker.stop() for worker in started]
    if any(codes) and not any_code:
        raise AssertionError(f"workers ended with {codes}")


def inspect(app):
    """Asks all workers of this mode; their answers are waited for, not a time."""
    # A worker that says that it is ready may subscribe a little later, whoever made it.
    until("all workers answer",
          lambda: len(app.control.ping(timeout=2, limit=len(Worker.running))) >= len(Worker.running))
    return app.control.inspect(timeout=10, limit=len(Worker.running) or 1)


def first_log():
    """The whole log of the first worker."""
    return next(WORK.glob("*-1-0.log")).read_text(errors="replace")


def logs(text):
    """The lines of all workers' logs, of this mode so far, that contain the text."""
    return [
        line for path in sorted(WORK.glob("*.log"))
        for line in path.read_text(errors="replace").splitlines() if text in line
    ]


# -- events ----------------------------------------------------------------------------------------


class Events:
    """What the workers of an app send while the block runs."""

    def __init__(self, app):
        self.app = app
        self.seen = []
        self._ready = threading.Event()
        self._stop = threading.Event()

    def __enter__(self):
        self._thread = threading.Thread(target=self._receive, daemon=True)
        self._thread.start()
        if not self._ready.wait(20):
            raise Late("events are not received")
        # The subscription takes effect with the first read, so an event of our own must come back.
        with self.app.connection_for_write() as connection:
            own = self.app.events.Dispatcher(connection, hostname="scene", buffer_while_offline=False)

            def heard():
                own.send("scene-ready")
                return [event for event in list(self.seen) if event["type"] == "scene-ready"]

            until("an event of our own", heard)
        return self

    def _receive(self):
        with self.app.connection_for_read() as connection:
            receiver = self.app.events.Receiver(connection, handlers={"*": self.seen.append})
            with receiver.consumer_context() as (own_connection, _channel, _consumers):
                self._ready.set()
                while not self._stop.is_set():
                    with contextlib.suppress(socket.timeout):
                        own_connection.drain_events(timeout=0.2)

    def of(self, task_id):
        """The events of a task, in the order of its life: a client and a worker have two clocks."""
        order = ["task-sent", "task-received", "task-started"]
        mine = [event for event in list(self.seen) if event.get("uuid") == task_id]
        return sorted(mine, key=lambda event: (*order, event["type"]).index(event["type"]))

    def wait_for(self, kind, task_id, seconds=20.0):
        return until(
            f"event {kind} of {task_id}",
            lambda: [event for event in self.of(task_id) if event["type"] == kind], seconds)

    def __exit__(self, *_error):
        self._stop.set()
        self._thread.join(10)


# -- the world of a scene --------------------------------------------------------------------------


def fault(name, times=1):
    """Puts faults where the app's stand-in finds them."""
    folder = pathlib.Path(os.environ["FAULTS_FOLDER"])
    for number in range(times):
        (folder / f"{name}.{number}").touch()


@contextlib.contextmanager
def gate(name):
    """A closed gate; the block gets a function that opens it for one who waits there."""
    path = pathlib.Path(os.environ["FAULTS_FOLDER"]) / name
    os.mkfifo(path)

    def come():
        try:
            return os.open(path, os.O_WRONLY | os.O_NONBLOCK)
        except OSError:
            return None  # nobody waits yet

    def open_gate():
        os.close(until(f"somebody waits at {name}", come))

    try:
        yield open_gate
    finally:
        path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK))


# -- playing ---------------------------------------------------------------------------------------


def _play(name, function):
    _lines.clear()
    _ids.clear()
    began = time.monotonic()
    error = None

    def too_long(_signal, _frame):
        raise Late(f"the scene took more than {SCENE_SECONDS} s")

    signal.signal(signal.SIGALRM, too_long)
    signal.setitimer(signal.ITIMER_REAL, SCENE_SECONDS, 5)  # again, for a finalizer swallows errors
    try:
        function()
    except Exception:  # the report says it; the next scene is another matter
        error = traceback.format_exc()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        gc.collect()
    return {"scene": name, "text": "\n".join(_lines), "error": error,
            "seconds": round(time.monotonic() - began, 2)}


def main(app, *arguments, leave=(), before=lambda: None):
    """Plays the scenes that `run.py` wants, each after `before`, and writes a line of JSON for each.

    In an idle mixed fleet stock workers get every task, for their BRPOP waits in Redis itself. So every
    second scene has a fleet whose stock worker leaves some queues to celeriac.
    """
    # redis-py 5's PubSub lock is not reentrant: a collection inside it that meets a result whose
    # finalizer unsubscribes (celery/result.py, __del__) stands still for ever.
    gc.disable()
    wanted = sys.argv[2:]
    chosen = [entry for entry in _scenes if not wanted or entry[0] in wanted]
    with open(sys.argv[1], "w", encoding="utf-8") as report:
        def put(line):
            report.write(json.dumps(line) + "\n")
            report.flush()

        shared = [entry for entry in chosen if entry[2] != "own"]
        divided = [entry for entry in shared if entry[2] == "any"][1::2] if MODE == "mixed" and leave else []
        fleets = [((), [entry for entry in shared if entry not in divided]), (leave, divided)]
        for left, scenes in fleets:
            if not scenes:
                continue
            try:
                with workers(app, *arguments, leave=left):
                    for name, function, _where in scenes:
                        before()
                        put(_play(name, function))
            except Exception:  # the report says it
                put({"scene": "workers", "text": "", "error": traceback.format_exc(), "seconds": 0})
        for name, function, where in chosen:
            if where == "own":
                before()
                put(_play(name, function))
                for worker in list(Worker.running):
                    worker.kill()
        tasks = {}
        for path in sorted(WORK.glob("*.log")):
            count = len(re.findall(r"Task [\w.]+\[[-\w]+\] received", path.read_text(errors="replace")))
            kind = path.name.split("-")[0]
            tasks[kind] = tasks.get(kind, 0) + count
        put({"received": tasks})
