"""Children whose tasks share a process: threads, coroutines on a loop, greenlets."""

import importlib.util
import os
import time
import unittest

from harness import PATIENCE, Folder, Redis, Template

APP = """
import asyncio
import contextvars
import os
import threading
import time
from celery import Celery, current_task
from celery.exceptions import SoftTimeLimitExceeded

app = Celery("proj", backend="cache+memory://")
mark = contextvars.ContextVar("mark", default=None)


def said(path, text):
    with open(path, "a") as file:
        file.write(text + "\\n")


def wait(path):
    with open(path) as pipe:
        pipe.read()


@app.task(bind=True)
def waits(self, path, began):
    said(began, self.request.id)
    wait(path)
    return [self.request.id, current_task.request.id, threading.current_thread().name.split("_")[0]]


@app.task(bind=True, soft_time_limit=600)
def spins(self, began):
    try:
        said(began, "began")
        while True:
            time.sleep(0.001)
    except SoftTimeLimitExceeded:
        return "stopped softly"


@app.task
def stubborn(began, path):
    said(began, "began")
    while True:
        try:
            while not os.path.exists(path):
                time.sleep(0.001)
            return "over"
        except BaseException:
            pass


@app.task
def leaves():
    raise SystemExit(3)


@app.task(bind=True)
async def sleeps(self, seconds):
    mark.set(self.request.id)
    before = self.request.id
    await asyncio.sleep(seconds)
    inner = await asyncio.create_task(named())
    return [before == self.request.id == inner, mark.get() == self.request.id]


async def named():
    return current_task.request.id


@app.task(bind=True)
async def sleeps_long(self, began, cleaned):
    try:
        said(began, "began")
        await asyncio.gather(asyncio.sleep(1000), asyncio.sleep(1000))
    except SoftTimeLimitExceeded:
        return "stopped softly"
    finally:
        said(cleaned, "cleaned")


@app.task(bind=True, autoretry_for=(ZeroDivisionError,), retry_kwargs={"max_retries": 0})
async def divides(self):
    await asyncio.sleep(0)
    return 1 / 0


@app.task
async def exits():
    raise SystemExit(4)


@app.task
def calls():
    async def both():
        return await asyncio.gather(sleeps.run(0.001), one.run())
    return asyncio.run(both())[1]


@app.task
async def one():
    return 1


@app.task(bind=True)
async def blocks(self, path, began):
    said(began, "began")
    wait(path)


@app.task
def green(seconds):
    time.sleep(seconds)
    return type(threading.current_thread()).__module__
"""


class Case(unittest.TestCase):
    pool = "threads"
    role = "shared"

    @classmethod
    def setUpClass(cls):
        cls.folder = Folder({"proj.py": APP})
        cls.template = Template(cls.folder, pool=cls.pool)
        cls.hello = cls.template.hello()

    @classmethod
    def tearDownClass(cls):
        cls.template.stop()
        cls.folder.remove()

    def setUp(self):
        self.child = self.template.fork(role=self.role)
        self.made = 0

    def path(self):
        self.made += 1
        return os.path.join(self.folder.path, f"{self.id()}-{self.made}")

    def pipe(self):
        path = self.path()
        os.mkfifo(path)
        return path

    def heard(self, tag):
        op, of, _, _ = self.child.receive()
        self.assertEqual((op, of), ("A", tag))

    def begin(self, name, *args, **options):
        tag = self.child.run(name, *args, **options)
        if self.role == "shared":
            self.heard(tag)
        return tag

    def done(self, tag):
        op, of, meta, _ = self.child.receive()
        self.assertEqual((op, of), ("D", tag))
        return meta

    def limit(self, tag, kind):
        self.child.send("L", tag, {"kind": kind})
        self.heard(tag)

    def wait_for(self, path, lines=1):
        """Until another process has written so many lines."""
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            try:
                with open(path) as file:
                    if len(file.readlines()) >= lines:
                        return
            except FileNotFoundError:
                pass
            os.sched_yield()
        raise TimeoutError(f"{path} has no {lines} lines\n{self.child.printed()}")


class Threads(Case):
    def test_runs_share_the_process_and_know_their_requests(self):
        began = self.path()
        pipes = [self.pipe() for _ in range(3)]
        tags = [self.begin("proj.waits", pipe, began, task_id=pipe) for pipe in pipes]
        self.wait_for(began, 3)
        for tag, pipe in reversed(list(zip(tags, pipes))):
            open(pipe, "w").close()
            done = self.done(tag)
            self.assertEqual(done["result"], repr([pipe, pipe, "ThreadPoolExecutor-0"]), done)

    def test_a_soft_limit_is_raised_in_its_run_only(self):
        began, other = self.path(), self.pipe()
        beside = self.begin("proj.waits", other, began)
        tag = self.begin("proj.spins", began)
        self.wait_for(began, 2)
        self.limit(tag, "soft")
        self.assertEqual(self.done(tag)["result"], "'stopped softly'")
        open(other, "w").close()
        self.assertEqual(self.done(beside)["state"], "success")
        self.assertIn("Soft time limit", self.child.log())

    def test_a_run_that_is_given_up_ends(self):
        began = self.path()
        tag = self.begin("proj.spins", began)
        self.wait_for(began)
        self.limit(tag, "hard")
        self.assertEqual(self.done(tag)["state"], "revoked")
        self.limit(tag, "hard")

    def test_a_run_that_does_not_end_disturbs_nobody(self):
        began, path, other = self.path(), self.path(), self.pipe()
        tag = self.begin("proj.stubborn", began, path)
        self.wait_for(began)
        self.limit(tag, "hard")
        beside = self.begin("proj.waits", other, began)
        open(other, "w").close()
        self.assertEqual(self.done(beside)["state"], "success")
        open(path, "w").close()
        self.done(tag)

    def test_an_exit_fails_its_run(self):
        done = self.done(self.begin("proj.leaves"))
        self.assertEqual((done["state"], done["leaves"]), ("failure", False))
        self.assertEqual(done["exception"]["type"], "WorkerLostError")
        self.assertEqual(done["exception"]["message"], "SystemExit(3)")

    def test_what_cannot_run_is_refused(self):
        done = self.done(self.begin("proj.nobody"))
        self.assertEqual((done["state"], done["disposition"]), ("failure", "reject"))

    def test_it_ends_when_it_is_told(self):
        self.child.send("X", 0, {})
        self.assertEqual(self.template.exit_of(self.child)["code"], 0)


class Coroutines(Case):
    pool = "asyncio"

    def test_coroutines_run_at_once_and_know_their_requests(self):
        tags = {self.child.run("proj.sleeps", 0.2) for _ in range(100)}
        ended = {}
        while len(ended) < 100:
            op, tag, meta, _ = self.child.receive()
            if op == "D":
                ended[tag] = meta["result"]
        self.assertEqual(set(ended), tags)
        self.assertEqual(set(ended.values()), {"[True, True]"})

    def test_a_soft_limit_is_raised_where_it_waits(self):
        began, cleaned = self.path(), self.path()
        tag = self.begin("proj.sleeps_long", began, cleaned)
        self.wait_for(began)
        self.limit(tag, "soft")
        self.assertEqual(self.done(tag)["result"], "'stopped softly'")
        self.wait_for(cleaned)

    def test_one_that_is_given_up_cleans_up(self):
        began, cleaned = self.path(), self.path()
        tag = self.begin("proj.sleeps_long", began, cleaned)
        self.wait_for(began)
        self.limit(tag, "hard")
        self.assertEqual(self.done(tag)["state"], "revoked")
        self.wait_for(cleaned)

    def test_autoretry_sees_what_a_coroutine_raises(self):
        done = self.done(self.begin("proj.divides"))
        self.assertEqual((done["state"], done["exception"]["type"]), ("failure", "ZeroDivisionError"))

    def test_an_exit_fails_its_run(self):
        done = self.done(self.begin("proj.exits"))
        self.assertEqual((done["state"], done["exception"]["type"]), ("failure", "WorkerLostError"))
        self.assertEqual(self.done(self.begin("proj.one"))["result"], "1")

    def test_whoever_calls_one_gets_a_coroutine(self):
        self.assertEqual(self.done(self.begin("proj.calls"))["result"], "1")

    def test_the_loop_that_stands_still_does_not_answer(self):
        began, pipe = self.path(), self.pipe()
        tag = self.begin("proj.blocks", pipe, began)
        self.wait_for(began)
        self.child.send("L", tag, {"kind": "hard"})
        # The process still takes runs, and says nothing of the limit.
        other = self.begin("proj.leaves")
        self.assertEqual(self.done(other)["state"], "failure")
        open(pipe, "w").close()
        self.heard(tag)


class CoroutinesOfPrefork(Case):
    pool = "prefork"
    role = "worker"

    def test_they_run_one_after_another(self):
        for _ in range(3):
            self.assertEqual(self.done(self.begin("proj.sleeps", 0.01))["result"], "[True, True]")

    def test_a_soft_limit_is_raised_where_it_waits(self):
        began, cleaned = self.path(), self.path()
        tag = self.begin("proj.sleeps_long", began, cleaned)
        self.wait_for(began)
        self.assertEqual(self.child.done_after_soft_limit(tag).result, "'stopped softly'")
        self.assertEqual(self.done(self.begin("proj.one"))["result"], "1")

    def test_a_soft_limit_is_raised_where_it_stands(self):
        began, cleaned = self.path(), self.path()
        tag = self.begin("proj.blocks", self.pipe(), began)
        self.wait_for(began)
        self.assertEqual(self.child.done_after_soft_limit(tag).exception["type"], "SoftTimeLimitExceeded")
        self.assertEqual(self.done(self.begin("proj.one"))["result"], "1")


@unittest.skipUnless(importlib.util.find_spec("gevent"), "gevent is not installed")
class Greenlets(Case):
    pool = "gevent"

    def test_runs_are_greenlets(self):
        tags = [self.begin("proj.green", 0.2) for _ in range(50)]
        self.assertEqual({self.done(tag)["state"] for tag in tags}, {"success"})

    def test_a_soft_limit_is_raised_where_it_waits(self):
        began = self.path()
        tag = self.begin("proj.spins", began)
        self.wait_for(began)
        self.limit(tag, "soft")
        self.assertEqual(self.done(tag)["result"], "'stopped softly'")

    def test_a_run_that_is_given_up_ends(self):
        began = self.path()
        tag = self.begin("proj.spins", began)
        self.wait_for(began)
        self.limit(tag, "hard")
        self.assertEqual(self.done(tag)["state"], "revoked")


class Results(Case):
    @classmethod
    def setUpClass(cls):
        cls.redis = Redis()
        app = APP.replace("cache+memory://", cls.redis.url)
        cls.folder = Folder({"proj.py": app})
        cls.template = Template(cls.folder, pool="asyncio")
        cls.template.hello()

    @classmethod
    def tearDownClass(cls):
        super().tearDownClass()
        cls.redis.stop()

    def test_results_of_runs_beside_each_other_go_through_the_worker(self):
        child = self.template.fork(store=True, role=self.role)
        tags = {child.run("proj.sleeps", 0.05, task_id=f"t{number}"): number for number in range(20)}
        stored, ended = {}, set()
        while len(ended) < 20:
            op, tag, meta, _ = child.receive()
            if op == "S":
                stored[tag] = meta["id"], meta["state"]
            elif op == "D":
                self.assertIn(tag, stored)
                ended.add(tag)
        self.assertEqual(stored, {tag: (f"t{number}", "SUCCESS") for tag, number in tags.items()})
        self.assertIsNone(self.redis.meta("t0"))


del Case
