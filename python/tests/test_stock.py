"""The same app under Celery's own worker: events, stored results, fate of the message, lines of the log."""

import base64
import json
import os
import re
import subprocess
import sys
import time
import unittest

import apps
import celery
from billiard import __version__ as billiard_version
from harness import PATIENCE, Folder, Redis, Template, message

VERSION = (celery.VERSION.major, celery.VERSION.minor)
BILLIARD = tuple(int(part) for part in billiard_version.split(".")[:2])

#: Name of a scene: its task, its arguments.
SCENES = {
    "success": ("proj.add", [1, 2]),
    "failure": ("proj.fails", []),
    "expected failure": ("proj.fails_expectedly", []),
    "late success": ("proj.late", ["fine"]),
    "late failure": ("proj.late", ["fail"]),
    "late failure, not acknowledged": ("proj.late_rejects", []),
    "late reject": ("proj.late", ["reject"]),
    "late requeue": ("proj.late", ["requeue"]),
    "late ignore": ("proj.late", ["ignore"]),
    "late retry": ("proj.late", ["retry"]),
    "early reject": ("proj.early", ["reject"]),
    "early requeue": ("proj.early", ["requeue"]),
    "early ignore": ("proj.early", ["ignore"]),
    "early retry": ("proj.early", ["retry"]),
    "retries that run out": ("proj.stubborn", []),
    "exception that cannot be pickled": ("proj.odd", []),
    "result that cannot be encoded": ("proj.unstorable", []),
    "unregistered": ("proj.nothing", []),
    "wrong arguments": ("proj.typed", []),
    "own request": ("proj.noted", [True]),
    "replaced": ("proj.replaced", []),
    "states": ("proj.progress", []),
    "started": ("proj.tracked", []),
}
if BILLIARD < (4,):
    # billiard 3 cannot pickle this one for Celery's main process and reports that instead.
    del SCENES["exception that cannot be pickled"]
if VERSION >= (5, 7) and BILLIARD >= (4, 3):
    SCENES["exit"] = ("proj.leaves", [])


def told(kind: str, event: dict) -> tuple:
    """What of an event must be the same."""
    return (kind, event.get("result"), event.get("exception"), event.get("requeue"))


def lines(log: str, task_id: str) -> list:
    """The lines about a task, without times."""
    found = []
    for line in log.splitlines():
        if f"[{task_id}]" in line and line.startswith("["):
            line = re.sub(r"^\[[^:]*:\d+:[\d,]+: ", "[", line)
            line = re.sub(r"ForkPoolWorker-\d+", "ForkPoolWorker", line)
            line = re.sub(r"0x[0-9a-f]+", "0x", line)
            found.append(re.sub(r"in [\de.-]+s", "in Ns", line))
    return found


class Stock:
    """Celery's own worker."""

    def __init__(self, folder, redis):
        self.redis = redis
        self.log = folder.path / "stock.log"
        environment = {**os.environ, "TEST_REDIS": redis.url}
        with open(self.log, "w") as output:
            self.process = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "celery",
                    "-A",
                    "proj",
                    "worker",
                    "-c1",
                    "-l",
                    "INFO",
                    "-n",
                    "w1@here",
                    "--without-gossip",
                    "--without-mingle",
                    "--without-heartbeat",
                ],
                cwd=folder.path,
                env=environment,
                stdout=output,
                stderr=output,
                stdin=subprocess.DEVNULL,
            )
        self.channel = redis.client.pubsub()
        self.channel.psubscribe("/0.celeryev/*")

    def events(self):
        """Events as they come."""
        last = time.monotonic()
        while True:
            heard = self.channel.get_message(ignore_subscribe_messages=True, timeout=PATIENCE)
            if heard is None:
                # Which is also said of a subscription.
                if time.monotonic() - last >= PATIENCE:
                    raise TimeoutError(f"Celery's worker is silent:\n{self.log.read_text()}")
                continue
            last = time.monotonic()
            envelope = json.loads(heard["data"])
            body = json.loads(base64.b64decode(envelope["body"]))
            yield from body if isinstance(body, list) else [body]

    def play(self, events, task_id: str, name: str, args: list) -> list:
        """Sends a scene and waits until nothing of it is left; its events."""
        found = []
        self.push(task_id, name, args)
        empty = 0
        for turn in range(9):
            mark = f"{task_id}-mark-{turn}"
            self.push(mark, "proj.echo", [turn])
            for event in events:
                # It fails when it was given to a child that was just leaving.
                if event.get("uuid") == mark and event["type"] in ("task-succeeded", "task-failed"):
                    break
                if event.get("uuid") == task_id and event["type"] not in ("task-received", "task-started"):
                    found.append(told(event["type"], event))
            client = self.redis.client
            idle = not client.llen("celery") and not client.hlen("unacked")
            empty = empty + 1 if idle else 0
            if empty == 2:
                return found
        return found

    def push(self, task_id: str, name: str, args: list) -> None:
        meta, body = message(name, *args, task_id=task_id)
        self.redis.client.lpush(
            "celery",
            json.dumps(
                {
                    "body": base64.b64encode(body).decode(),
                    "headers": meta["headers"],
                    "content-type": "application/json",
                    "content-encoding": "utf-8",
                    "properties": {
                        **meta["properties"],
                        "delivery_info": {"exchange": "", "routing_key": "celery"},
                        "body_encoding": "base64",
                        "delivery_tag": task_id,
                    },
                }
            ),
        )

    def stop(self) -> None:
        self.channel.close()
        self.process.terminate()
        self.process.wait(PATIENCE)


class Ours:
    """A template and its child, with a worker's part played here."""

    def __init__(self, folder, redis):
        self.redis = redis
        self.template = Template(folder, env={"TEST_REDIS": redis.url})
        self.template.hello()
        self.child = self.template.fork(store=True)
        self.earlier = ""

    @property
    def log(self) -> str:
        return self.earlier + self.child.log()

    def play(self, task_id: str, name: str, args: list) -> list:
        found = []
        waiting = [message(name, *args, task_id=task_id)]
        while waiting:
            meta, body = waiting.pop(0)
            self.child.tag += 1
            self.child.send("R", self.child.tag, meta, body)
            done = self.child.done()
            self.redis.store(done)
            if meta["headers"]["id"] == task_id:
                found += self.told(done)
            if done.leaves:
                self.template.exit_of(self.child)
                self.earlier += self.child.log()
                self.child = self.template.fork(store=True)
            if done.disposition == "requeue":
                meta["delivery_info"]["redelivered"] = True
                waiting.append((meta, body))
            sent = self.redis.take()
            if sent is not None:
                waiting.append(sent)
        return found

    @staticmethod
    def told(done) -> list:
        """The events that the worker makes of an outcome."""
        repr_ = done.exception["repr"] if done.exception else None
        events = []
        if done.state == "success":
            events.append(("task-succeeded", done.result, None, None))
        if done.state == "retry":
            events.append(("task-retried", None, repr_ or "None", None))
        if done.state in ("failure", "rejected") and done.exception:
            events.append(("task-failed", None, repr_, None))
        started = done.exception is None or done.traceback is not None
        if done.disposition in ("reject", "requeue") and started:
            events.append(("task-rejected", None, None, done.disposition == "requeue"))
        return events


class SameAsStock(unittest.TestCase):
    def test_scenes(self):
        self.maxDiff = None
        redis = Redis()
        self.addCleanup(redis.stop)
        folder = Folder({"proj.py": apps.SCENES})
        self.addCleanup(folder.remove)
        stock = Stock(folder, redis)
        self.addCleanup(stock.stop)
        events = stock.events()
        theirs = {}
        for number, (scene, (name, args)) in enumerate(SCENES.items()):
            task_id = f"scene-{number}-"
            theirs[scene] = self.seen(redis, task_id, stock.play(events, task_id, name, args))
        stock_log = stock.log.read_text()
        stock.process.terminate()
        stock.process.wait(PATIENCE)
        redis.client.flushall()
        ours = Ours(folder, redis)
        self.addCleanup(ours.template.stop)
        for number, (scene, (name, args)) in enumerate(SCENES.items()):
            task_id = f"scene-{number}-"
            with self.subTest(scene=scene):
                mine = self.seen(redis, task_id, ours.play(task_id, name, args))
                self.assertEqual(theirs[scene], mine)
                # Two processes write a stock log, so lines of the one may overtake those of the other.
                self.assertEqual(sorted(lines(stock_log, task_id)), sorted(lines(ours.log, task_id)))

    @staticmethod
    def seen(redis, task_id: str, events: list) -> tuple:
        meta = redis.meta(task_id)
        if meta:
            meta = {name: meta[name] for name in ("status", "result", "task_id", "children")}
        return sorted(events, key=str), re.sub("0x[0-9a-f]+", "0x", json.dumps(meta, sort_keys=True))


if __name__ == "__main__":
    unittest.main(argv=sys.argv)
