"""A worker of one kind, its Redis, and everything that can be seen of them from outside."""

import asyncio
import base64
import contextlib
import ctypes
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import time

import redis

from .plain import hide, plain, show

APPS = pathlib.Path(__file__).resolve().parents[1] / "apps"
TICK = 0.02
READY_SECONDS = 60
STOP_SECONDS = 40
#: Of an event: what is chance.
EVENT_CHANCE = {"timestamp", "clock", "pid", "local_received", "uuid", "type"}
#: Member that celeriac adds to a stored result; it is told once, in the scene of results.
OWN_MEMBER = "celeriac"
#: Keys of celeriac's own; what a release of its queues gives back is another test's matter.
OWN_KEYS = re.compile(r"^(celeriac|_celeriac|\{celeriac)")


class Late(AssertionError):
    """A condition did not come true before its deadline."""


async def until(what, condition, seconds=15.0):
    """Waits for a condition and gives its value; late is an error that says for what."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise Late(f"after {seconds:g} s still not: {what}")
        await asyncio.sleep(TICK)
    return value


def end_with_us():
    """Linux: a worker does not outlive whoever plays it."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)


class Stage:
    """Where one kind of worker plays: `stock` or `celeriac`."""

    def __init__(self, kind, url, work, celeriac):
        self.kind = kind
        self.url = url
        self.work = pathlib.Path(work)
        self.celeriac = celeriac
        self.client = redis.Redis.from_url(url)
        self.channel = redis.Redis.from_url(url).pubsub()
        self.events = []
        self.stored = []
        self.workers = []
        for path, word in ((self.work, "<work>"), (APPS, "<apps>")):
            hide(path, word)

    # -- what is heard -----------------------------------------------------------------------------

    async def listen(self):
        """Hears events and stored results as they are published; ends when it is cancelled."""
        self.channel.psubscribe("/*.celeryev/*", "celery-task-meta-*")
        while True:
            heard = self.channel.get_message()
            if heard is None:
                await asyncio.sleep(TICK / 2)
                continue
            self._hear(heard)

    def drain(self):
        """Hears what was published until now."""
        while (heard := self.channel.get_message(timeout=0.2)) is not None:
            self._hear(heard)

    def _hear(self, heard):
        if heard["type"] != "pmessage":
            return
        if heard["channel"].startswith(b"celery-task-meta-"):
            self.stored.append((heard["channel"].decode()[len("celery-task-meta-"):], heard["data"]))
            return
        envelope = json.loads(heard["data"])
        body = json.loads(base64.b64decode(envelope["body"]))
        self.events.extend(body if isinstance(body, list) else [body])

    def events_of(self, task_id, kind=None):
        """Events of a task in the order in which they came; that its client sent it is not among them."""
        return [event for event in self.events
                if event.get("uuid") == task_id and event["type"] != "task-sent"
                and kind in (None, event["type"])]

    def notes(self, kind=None, **members):
        """What the app noted until now."""
        path = self.work / "notes.jsonl"
        lines = path.read_text().splitlines() if path.exists() else []
        notes = [json.loads(line) for line in lines]
        return [note for note in notes if kind in (None, note["kind"])
                and all(note.get(name) == value for name, value in members.items())]

    def document(self, task_id):
        """The stored result as other programs read it."""
        raw = self.client.get(f"celery-task-meta-{task_id}")
        return raw and json.loads(raw)

    def left(self):
        """Lists and hashes of Celery that still hold something."""
        found = {}
        for key in sorted(self.client.keys()):
            name = key.decode()
            kind = self.client.type(key)
            # Replies to remote control belong to whoever asked, and expire.
            if OWN_KEYS.match(name) or ".reply." in name or name.startswith(("_kombu", "celery-task-meta-", "waiting:", "gate:")):
                continue
            size = {b"list": self.client.llen, b"hash": self.client.hlen, b"zset": self.client.zcard}.get(kind)
            found[plain(name)] = size(key) if size else kind.decode()
        return found

    # -- gates -------------------------------------------------------------------------------------

    async def waiting(self, gate):
        """Waits until a task stands at a gate."""
        await until(f"somebody waits at {gate}", lambda: self.client.lpop(f"waiting:{gate}"))

    def open(self, gate):
        """Lets one task through."""
        self.client.rpush(f"gate:{gate}", "1")

    # -- workers -----------------------------------------------------------------------------------

    def worker(self, app, name, *arguments, launch=None, before=(), **environment):
        """Starts a worker. `launch`: how stock Celery is started otherwise; `before`: options before `worker`."""
        if self.kind == "celeriac":
            head = [self.celeriac, "-A", app, "--python", sys.executable, *before]
        else:
            celery = pathlib.Path(sys.executable).parent / "celery"
            head = [*(launch or [str(celery), "-A", app]), *before]
        argv = [*head, "worker", "-n", f"{name}@semantics", *arguments]
        worker = Worker(self, name, argv, environment)
        self.workers.append(worker)
        return worker


class Worker:
    """A running worker."""

    def __init__(self, stage, name, argv, environment):
        self.stage = stage
        self.node = f"{name}@semantics"
        self.log = stage.work / f"{name}.log"
        self.out = stage.work / f"{name}.out"
        ours = {
            "PATH": os.environ.get("PATH", os.defpath), "HOME": str(stage.work), "LANG": "C.UTF-8",
            "PYTHONUNBUFFERED": "1", "PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1", "SEMANTICS_URL": stage.url, "C_FORCE_ROOT": "1",
            "SEMANTICS_NOTES": str(stage.work / "notes.jsonl"), **environment,
        }
        with self.log.open("ab") as log, self.out.open("ab") as out:
            self.process = subprocess.Popen(argv, cwd=APPS, env=ours, stdin=subprocess.DEVNULL, stdout=out,
                                            stderr=log, preexec_fn=end_with_us)
        self.code = None

    def text(self):
        """Its log: standard error."""
        return self.log.read_text(errors="replace")

    def printed(self):
        """Its standard output."""
        return self.out.read_text(errors="replace")

    async def ready(self):
        """Waits until it says that it is."""

        def said():
            if self.process.poll() is not None:
                raise AssertionError(f"{self.node} ended with {self.process.returncode}:\n"
                                     f"{self.printed()}{self.text()}")
            return f"{self.node} ready" in self.text() + self.printed()

        await until(f"{self.node} is ready", said, READY_SECONDS)
        return self

    async def stop(self, number=signal.SIGTERM):
        """TERM, and the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            self.code = await until(f"{self.node} ended", lambda: self.process.poll() is not None and
                                    [self.process.returncode], STOP_SECONDS)
            self.code = self.code[0]
        except Late:
            self.process.kill()
            self.process.wait()
            raise
        return self.code

    def lines(self, word):
        """Entries of its log that hold a word: a line with the lines that follow without a time."""
        entries = []
        for line in self.text().splitlines():
            if line.startswith(("[2", "2")) or not entries:
                entries.append(line)
            else:
                entries[-1] += f"\n{line}"
        return [plain(entry) for entry in entries if word in entry]


def in_order(lines):
    """Lines of a task in their order; of several deliveries, which overtake each other, sorted."""
    several = sum("task-received" in line or "task_prerun" in line for line in lines) > 1
    # Celery's main process tells of a termination while the child unwinds.
    several = several or any("task_revoked" in line or "TimeLimit" in line for line in lines)
    return "\n".join(sorted(lines) if several else lines) or "none"


def told(event, ids):
    """An event in words, without chance."""
    members = {name: value for name, value in event.items() if name not in EVENT_CHANCE}
    for name in ("runtime", "timestamp"):
        if name in members:
            members[name] = type(members[name]).__name__
    # A number with a fraction since 5.7; celeriac sends what 5.7 sends.
    members["utcoffset"] = float(members["utcoffset"])
    if members.get("traceback"):
        members["traceback"] = "<traceback>"
    return f"{event['type']} {plain(show(members), ids)}"


def shown_document(document, ids):
    """A stored result without its traceback, which is a feature of its own."""
    if document is None:
        return "none"
    said = {key: "<traceback>" if key == "traceback" and value else value for key, value in document.items()
            if key != OWN_MEMBER}
    return plain(show(said), ids)
