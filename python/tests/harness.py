"""Plays the worker's side of protocol 1 for the tests, and runs a Redis of their own."""

from __future__ import annotations

import array
import base64
import contextlib
import json
import mmap
import os
import pathlib
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import textwrap
import time
import uuid

HEAD = struct.Struct("<BBQI")
PIECE = 128 * 1024
PATIENCE = 30.0
ROOT = pathlib.Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "celeriac_child"


def sources() -> dict:
    """The texts that the worker sends."""
    return {f"celeriac_child/{path.name}": path.read_text() for path in sorted(PACKAGE.glob("*.py"))}


class Ended(Exception):
    """The other side closed its socket."""


class Refused(Exception):
    """The template could not fork."""


class Folder:
    """A temporary folder with the files of an app."""

    def __init__(self, files: dict):
        self.path = pathlib.Path(tempfile.mkdtemp(prefix="celeriac-test-"))
        for name, text in files.items():
            target = self.path / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(textwrap.dedent(text))

    def remove(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)


class Redis:
    """A private redis-server on a Unix socket and a free port."""

    def __init__(self):
        self.folder = tempfile.mkdtemp(prefix="celeriac-redis-")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.process = subprocess.Popen(
            [
                "redis-server",
                "--port",
                str(self.port),
                "--bind",
                "127.0.0.1",
                "--save",
                "",
                "--appendonly",
                "no",
                "--dir",
                self.folder,
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for line in self.process.stdout:
            if "eady to accept connections" in line:
                break
        else:
            raise RuntimeError("redis-server does not start")
        self.url = f"redis://127.0.0.1:{self.port}/0"
        import redis

        self.client = redis.Redis(port=self.port)

    def messages(self, queue: str = "celery") -> list:
        """Messages of a queue, oldest first: headers, and the body decoded."""
        found = []
        for raw in reversed(self.client.lrange(queue, 0, -1)):
            message = json.loads(raw)
            body = json.loads(base64.b64decode(message["body"]))
            found.append((message["headers"], body, message["properties"]))
        return found

    def take(self, queue: str = "celery"):
        """Takes the oldest message: meta and body of its run; None when there is none."""
        raw = self.client.rpop(queue)
        if raw is None:
            return None
        message = json.loads(raw)
        properties = message["properties"]
        info = {
            **properties.pop("delivery_info"),
            "priority": properties.get("priority"),
            "redelivered": False,
        }
        meta = {
            "headers": message["headers"],
            "properties": properties,
            "delivery_info": info,
            "content_type": message["content-type"],
            "content_encoding": message["content-encoding"],
        }
        return meta, base64.b64decode(message["body"])

    def store(self, done) -> None:
        """Writes what a child sent to be stored, never over a success."""
        for meta, body in done.raw_stores:
            known = self.meta(meta["id"])
            if not known or known["status"] != "SUCCESS":
                self.client.set(f"celery-task-meta-{meta['id']}", body)
                self.client.publish(f"celery-task-meta-{meta['id']}", body)

    def meta(self, task_id: str):
        raw = self.client.get(f"celery-task-meta-{task_id}")
        return raw and json.loads(raw)

    def stop(self) -> None:
        self.client.close()
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()
        shutil.rmtree(self.folder, ignore_errors=True)


class Template:
    """A started interpreter and its control socket."""

    def __init__(self, folder, app="proj", python=sys.executable, env=None, **start):
        self.folder = folder
        mine, theirs = socket.socketpair()
        mine.settimeout(PATIENCE)
        self.control = mine
        self.output = tempfile.TemporaryFile()
        environment = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("CELERY", "PYTHON", "USE_FAST"))
        }
        environment.update(env or {})
        self.process = subprocess.Popen(
            [python, "-c", (PACKAGE / "boot.py").read_text()],
            cwd=folder.path,
            stdin=theirs,
            stdout=self.output,
            stderr=self.output,
            env=environment,
        )
        theirs.close()
        self.start = {
            "op": "start",
            "protocol": 1,
            "files": sources(),
            "app": app,
            "argv": ["celery", "-A", app, "worker"],
            "hostname": "w1@here",
            "queues": None,
            "exclude_queues": None,
            "broker_url": None,
            "result_backend": None,
            "settings": {},
            "pool": "prefork",
            "concurrency": None,
            "loglevel": "INFO",
            "logfile": None,
            "color": False,
            "options": {},
        }
        self.start.update(start)
        self.send(self.start)
        self.slots = 0
        self.children = []

    def send(self, frame: dict, descriptors=()) -> None:
        payload = json.dumps(frame).encode()
        data = struct.pack(">I", len(payload)) + payload
        sent = 0
        if descriptors:
            rights = array.array("i", descriptors)
            sent = self.control.sendmsg([data[:4]], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
        self.control.sendall(data[sent:])

    def receive(self) -> dict:
        room = socket.CMSG_SPACE(4 * 4)
        head, ancillary, _, _ = self.control.recvmsg(4, room)
        if not head:
            raise Ended(self.printed())
        descriptors = array.array("i")
        for _, _, content in ancillary:
            descriptors.frombytes(content)
        length = struct.unpack(">I", head)[0]
        payload = b""
        while len(payload) < length:
            payload += self.control.recv(length - len(payload))
        frame = json.loads(payload)
        frame["descriptors"] = list(descriptors)
        return frame

    def hello(self) -> dict:
        frame = self.receive()
        assert frame["op"] == "hello", frame
        return frame

    def failed(self) -> dict:
        frame = self.receive()
        assert frame["op"] == "failed", frame
        self.process.wait(PATIENCE)
        return frame

    def fork(self, store=False, role="worker", ready=True):
        child = Child(self, self.slots, store, role)
        self.slots += 1
        self.children.append(child)
        if ready:
            child.ready()
        return child

    def exit_of(self, child) -> dict:
        while child.exit is None:
            frame = self.receive()
            assert frame["op"] == "exit", frame
            self.note(frame)
        return child.exit

    def note(self, frame: dict) -> None:
        for child in self.children:
            if child.pid == frame["pid"]:
                child.exit = frame

    def printed(self) -> str:
        self.output.seek(0)
        return self.output.read().decode(errors="replace")

    def stop(self) -> None:
        for child in self.children:
            child.close()
        self.control.close()
        try:
            self.process.wait(PATIENCE)
        finally:
            self.process.kill()
            self.process.wait()
            self.output.close()


class Child:
    """The worker's end of one child."""

    def __init__(self, template, slot, store, role):
        self.template = template
        self.exit = None
        self.tag = 0
        self.job, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.job.settimeout(PATIENCE)
        for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
            self.job.setsockopt(socket.SOL_SOCKET, option, 1 << 22)
        page = os.memfd_create("page")
        os.ftruncate(page, 4096)
        self.page = mmap.mmap(page, 4096)
        self.output = tempfile.TemporaryFile()
        self.errors = tempfile.TemporaryFile()
        template.send(
            {"op": "fork", "slot": slot, "role": role, "store": store},
            [theirs.fileno(), page, self.output.fileno(), self.errors.fileno()],
        )
        theirs.close()
        os.close(page)
        forked = template.receive()
        while forked["op"] == "exit" and forked["pid"]:
            template.note(forked)
            forked = template.receive()
        if forked["op"] == "exit":
            for one in (self.job, self.page, self.output, self.errors):
                one.close()
            raise Refused(forked)
        assert forked["op"] == "forked" and forked["slot"] == slot, forked
        self.pid = forked["pid"]
        (self.pidfd,) = forked["descriptors"]

    def ready(self) -> None:
        op, _, meta, _ = self.receive()
        assert op == "H" and meta["pid"] == self.pid, (op, meta)

    def receive(self):
        pieces = []
        while True:
            datagram = self.job.recv(HEAD.size + PIECE)
            if not datagram:
                raise Ended(self.printed())
            op, flags, tag, meta_bytes = HEAD.unpack_from(datagram)
            pieces.append(datagram[HEAD.size :])
            if not flags & 1:
                break
        payload = b"".join(pieces)
        meta = json.loads(payload[:meta_bytes]) if meta_bytes else {}
        return chr(op), tag, meta, payload[meta_bytes:]

    def send(self, op: str, tag: int, meta: dict, body: bytes = b"") -> None:
        data = json.dumps(meta).encode()
        payload = memoryview(data + body)
        while True:
            piece, payload = payload[:PIECE], payload[PIECE:]
            self.job.send(HEAD.pack(ord(op), 1 if payload else 0, tag, len(data)) + piece)
            if not payload:
                return

    def run(self, name, *args, **options):
        """Sends a run; its tag."""
        self.tag += 1
        meta, body = message(name, *args, **options)
        self.send("R", self.tag, meta, body)
        return self.tag

    def done(self):
        """What came up to and with the next `D`: its meta and the stores before it."""
        stores = []
        while True:
            op, tag, meta, body = self.receive()
            assert tag == self.tag, (tag, self.tag)
            if op == "D":
                return Done(meta, stores)
            assert op == "S", op
            stores.append((meta, body))

    def do(self, name, *args, **options):
        self.run(name, *args, **options)
        return self.done()

    def drain(self, redis) -> list:
        """Runs what waits in the queue until it is empty, as a worker would; outcomes by task name."""
        outcomes = []
        while True:
            taken = redis.take()
            if taken is None:
                return outcomes
            self.tag += 1
            self.send("R", self.tag, *taken)
            done = self.done()
            redis.store(done)
            outcomes.append((taken[0]["headers"]["task"], done.state))

    def shown(self):
        """The page: running tag, when it began, how many ended."""
        return struct.unpack_from("<QdQ", self.page, 0)

    def soft_limit(self, tag: int) -> None:
        struct.pack_into("<Q", self.page, 24, tag)
        os.kill(self.pid, signal.SIGUSR1)

    def done_after_soft_limit(self, tag: int):
        """Repeats the signal until the run ends, as the protocol lets the worker do."""
        self.soft_limit_until(tag, lambda: select.select([self.job], [], [], 0.1)[0])
        return self.done()

    def soft_limit_until(self, tag: int, is_seen) -> None:
        """Repeats the signal while nothing comes of it, but not faster than Python can handle it: handlers would
        be called inside of each other without end."""
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            self.soft_limit(tag)
            again = time.monotonic() + 0.5
            while time.monotonic() < again:
                if is_seen():
                    return
                os.sched_yield()
        raise TimeoutError(self.printed())

    def kill(self, number=signal.SIGKILL) -> None:
        signal.pidfd_send_signal(self.pidfd, number)

    def terminate(self) -> None:
        """Repeats the signal while nothing comes of it: Python notes one that meets the way into a system call
        only when the call is over."""
        for _ in range(int(PATIENCE)):
            self.kill(signal.SIGTERM)
            if select.select([self.pidfd], [], [], 1.0)[0]:
                return
        raise TimeoutError(self.printed())

    def gone(self) -> None:
        """Waits until the process ended."""
        select.select([self.pidfd], [], [], PATIENCE)

    def log(self) -> str:
        self.errors.seek(0)
        return self.errors.read().decode(errors="replace")

    def printed(self) -> str:
        self.output.seek(0)
        return self.output.read().decode(errors="replace") + self.log()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.job.close()
            self.page.close()
            self.output.close()
            self.errors.close()
            os.close(self.pidfd)


class Done:
    """The meta of a `D` by its members, and the stores before it."""

    def __init__(self, meta: dict, stores: list):
        self.meta = meta
        self.stores = [(one["id"], one["state"], json.loads(body)) for one, body in stores]
        self.raw_stores = stores
        for name, value in meta.items():
            setattr(self, name, value)

    @property
    def outcome(self):
        return self.state, self.disposition


def message(
    name,
    *args,
    kwargs=None,
    embed=None,
    headers=None,
    properties=None,
    delivery_info=None,
    body=None,
    content_type="application/json",
    content_encoding="utf-8",
    task_id=None,
):
    """The meta and body of a run, as `apply_async` of Celery makes them (protocol 2)."""
    task_id = task_id or str(uuid.uuid4())
    heads = {
        "lang": "py",
        "task": name,
        "id": task_id,
        "shadow": None,
        "eta": None,
        "expires": None,
        "group": None,
        "group_index": None,
        "retries": 0,
        "timelimit": [None, None],
        "root_id": task_id,
        "parent_id": None,
        "argsrepr": repr(args),
        "kwargsrepr": repr(kwargs or {}),
        "origin": "gen1@here",
        "ignore_result": False,
        "replaced_task_nesting": 0,
        "stamped_headers": None,
        "stamps": {},
    }
    heads.update(headers or {})
    props = {"correlation_id": task_id, "reply_to": str(uuid.uuid4()), "delivery_mode": 2, "priority": 0}
    props.update(properties or {})
    info = {"exchange": "", "routing_key": "celery", "priority": props["priority"], "redelivered": False}
    info.update(delivery_info or {})
    if body is None:
        rest = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}
        rest.update(embed or {})
        body = json.dumps([args, kwargs or {}, rest]).encode()
    meta = {
        "headers": heads,
        "properties": props,
        "delivery_info": info,
        "content_type": content_type,
        "content_encoding": content_encoding,
    }
    return meta, body
