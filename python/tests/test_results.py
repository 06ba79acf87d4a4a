"""Results through the worker (`S`), and those that Celery stores itself."""

import json
import pathlib
import sys
import unittest

import apps
import celery
from harness import Folder, Redis, Template

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
VERSION = (celery.VERSION.major, celery.VERSION.minor)


class Results(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.redis = Redis()
        cls.folder = Folder({"proj.py": apps.SCENES})
        cls.template = Template(cls.folder, env={"TEST_REDIS": cls.redis.url})
        cls.template.hello()
        cls.child = cls.template.fork(store=True)
        cls.direct = cls.template.fork(store=False)

    @classmethod
    def tearDownClass(cls):
        cls.template.stop()
        cls.folder.remove()
        cls.redis.stop()

    def setUp(self):
        self.redis.client.flushall()

    def test_without_store_celery_writes(self):
        done = self.direct.do("proj.add", 1, 2, task_id="d")
        self.assertEqual(done.stores, [])
        self.assertEqual(self.redis.meta("d")["result"], 3)

    def test_both_ways_build_the_same_document(self):
        for name, args in (("proj.add", (1, 2)), ("proj.fails", ()), ("proj.tracked", ()), ("proj.odd", ())):
            with self.subTest(name=name):
                self.direct.do(name, *args, task_id="same")
                done = self.child.do(name, *args, task_id="same")
                ours, theirs = done.stores[-1][2], self.redis.meta("same")
                for meta in (ours, theirs):
                    meta.pop("date_done")
                self.assertEqual(ours, theirs)
                self.redis.client.flushall()

    def test_states_come_in_order(self):
        done = self.child.do("proj.tracked", task_id="t")
        self.assertEqual([state for _, state, _ in done.stores], ["STARTED", "SUCCESS"])
        self.assertEqual(done.stores[0][2]["result"]["hostname"], "w1@here")

    def test_ignored_results_are_not_sent(self):
        self.assertEqual(self.child.do("proj.add", 1, 2, headers={"ignore_result": True}).stores, [])
        self.assertEqual(self.child.do("proj.noop", headers={"ignore_result": None}).stores, [])
        # Before 5.6 the header does not keep a failure from being stored.
        kept = [] if VERSION >= (5, 6) else ["FAILURE"]
        done = self.child.do("proj.fails", headers={"ignore_result": True})
        self.assertEqual([state for _, state, _ in done.stores], kept)

    def test_a_task_reads_its_own_writes(self):
        done = self.child.do("proj.progress", task_id="p")
        self.assertEqual(done.stores[-1][2]["result"], ["PROGRESS", {"done": 2}])
        self.assertIsNone(self.redis.meta("p"))

    def test_the_next_task_reads_what_is_not_yet_written(self):
        self.child.do("proj.add", 1, 2, task_id="before")
        self.assertEqual(self.child.do("proj.state_of", "before").result, "'SUCCESS'")

    def test_what_others_wrote_is_seen(self):
        self.child.do("proj.late", "retry", task_id="x")
        self.redis.client.set(
            "celery-task-meta-x",
            json.dumps(
                {
                    "status": "SUCCESS",
                    "result": 1,
                    "traceback": None,
                    "children": [],
                    "task_id": "x",
                }
            ),
        )
        self.assertEqual(self.child.do("proj.state_of", "x").result, "'SUCCESS'")
        self.redis.client.flushall()
        self.child.do("proj.noop", headers={"ignore_result": True})
        self.assertEqual(self.child.do("proj.state_of", "x").result, "'PENDING'")

    def app(self):
        from celery import Celery

        app = Celery("proj", broker=self.redis.url, backend=self.redis.url)
        # Results that are collected after the end of Redis would wait for it.
        app.backend.remove_pending_result = lambda result: None
        return app

    def test_members_of_a_chord_are_stored_by_celery(self):
        from celery import chord, signature

        app = self.app()
        result = chord(
            [signature("proj.add", (1, y), app=app) for y in (0, 1)],
            signature("proj.echo", app=app),
            app=app,
        ).apply_async()
        for y in (0, 1):
            meta, body = self.redis.take()
            self.child.tag += 1
            self.child.send("R", self.child.tag, meta, body)
            done = self.child.done()
            self.assertEqual((done.outcome, done.stores), (("success", "ack"), []))
            self.assertEqual(self.redis.meta(meta["headers"]["id"])["result"], 1 + y)
        self.child.drain(self.redis)
        self.assertEqual(self.redis.meta(result.id)["result"], [1, 2])

    def test_canvas(self):
        from celery import chain, chord, group, signature

        app = self.app()

        def add(*args):
            return signature("proj.add", args, app=app)

        echo, fails = signature("proj.echo", app=app), signature("proj.fails", app=app, immutable=True)
        for title, canvas, status, value in (
            ("chain", chain(add(1, 2), add(3), add(4)), "SUCCESS", 10),
            (
                "chord of chains",
                chord([chain(add(1, 1), add(1)), add(2, 2)], echo.clone()),
                "SUCCESS",
                [3, 4],
            ),
            ("chain with a group", chain(group(add(1, 1), add(2, 2)), echo.clone()), "SUCCESS", [2, 4]),
            (
                "nested chord",
                chord([chord([add(1, 1), add(2, 2)], echo.clone()), add(3, 3)], echo.clone()),
                "SUCCESS",
                [[2, 4], 6],
            ),
            (
                "replaced in a chain",
                chain(signature("proj.replaced", app=app, immutable=True), add(10)),
                "SUCCESS",
                17,
            ),
            ("broken chain", chain(add(1, 2), fails.clone(), echo.clone()), "FAILURE", None),
            ("broken chord", chord([add(1, 2), fails.clone()], echo.clone()), "FAILURE", None),
        ):
            with self.subTest(title=title):
                result = canvas.apply_async()
                self.child.drain(self.redis)
                meta = self.redis.meta(result.id)
                self.assertEqual(meta["status"], status)
                if status == "SUCCESS":
                    self.assertEqual(meta["result"], value)

    def test_large_arguments_and_results_pass(self):
        text = "x" * (20 << 20)
        done = self.child.do("proj.echo", text, headers={"argsrepr": "..."})
        self.assertEqual(len(done.raw_stores[0][1]) > len(text), True)
        self.assertEqual(done.stores[0][2]["result"], text)


class Deduplicated(unittest.TestCase):
    def test_redelivered_successes_and_threads(self):
        redis = Redis()
        self.addCleanup(redis.stop)
        folder = Folder({"proj.py": apps.DEDUPLICATED})
        self.addCleanup(folder.remove)
        template = Template(folder, env={"TEST_REDIS": redis.url})
        self.addCleanup(template.stop)
        template.hello()
        child = template.fork(store=True)
        redis.store(child.do("proj.once", task_id="o"))
        again = child.do("proj.once", task_id="o", delivery_info={"redelivered": True})
        self.assertEqual((again.outcome, again.result, again.stores), (("success", "ack"), None, []))
        done = child.do("proj.threaded", task_id="t")
        self.assertEqual((done.result, [state for _, state, _ in done.stores]), ("'PROGRESS'", ["SUCCESS"]))
        self.assertEqual(redis.meta("t")["status"], "PROGRESS")


class OwnBackends(unittest.TestCase):
    def test_a_class_that_stores_in_its_own_way_is_left_alone(self):
        from celeriac_child.results import is_own
        from celery import Celery
        from celery.backends.redis import RedisBackend

        class Setting(RedisBackend):
            def set(self, key, value, **options):
                pass

        class Plain(RedisBackend):
            extra = 1

        def backend(url):
            return Celery("p", backend=url, set_as_current=False).backend

        app = Celery("p", set_as_current=False)
        patched, compressed = backend("redis://h"), backend("redis://h")
        patched._set_with_state = None
        compressed.compression = "gzip"
        for one, own in (
            (backend("redis://h"), False),
            (backend("cache+memory://"), False),
            (backend(None), True),
            (backend("rpc://"), True),
            (Setting(app=app, host="h"), True),
            (Plain(app=app, host="h"), False),
            (patched, True),
            (compressed, True),
        ):
            with self.subTest(one=one):
                self.assertEqual(is_own(one), own)

    def test_store_is_ignored_for_such_a_class(self):
        text = """
            from celery import Celery
            app = Celery("p")
            @app.task
            def one():
                return 1
        """
        folder = Folder({"proj.py": text})
        self.addCleanup(folder.remove)
        template = Template(folder)
        self.addCleanup(template.stop)
        self.assertTrue(template.hello()["backend"]["own"])
        self.assertEqual(template.fork(store=True).do("proj.one").stores, [])


if __name__ == "__main__":
    unittest.main(argv=sys.argv)
