"""What a child reports about a run: `D`, and Celery's rules behind it."""

import json
import pickle
import sys
import unittest
import zlib

import apps
import celery
from billiard import __version__ as billiard_version
from harness import Ended, Folder, Redis, Template

VERSION = (celery.VERSION.major, celery.VERSION.minor)
BILLIARD = tuple(int(part) for part in billiard_version.split(".")[:2])


class Outcomes(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.redis = Redis()
        cls.folder = Folder({"proj.py": apps.SCENES})
        cls.template = Template(
            cls.folder,
            env={"TEST_REDIS": cls.redis.url, "C_FORCE_ROOT": "1"},
            settings={"accept_content": ["json", "pickle"]},
        )
        cls.template.hello()
        cls.child = cls.template.fork(store=True)

    @classmethod
    def tearDownClass(cls):
        cls.template.stop()
        cls.folder.remove()
        cls.redis.stop()

    def setUp(self):
        self.redis.client.flushall()

    def do(self, name, *args, **options):
        return self.child.do(name, *args, **options)

    def test_a_success(self):
        done = self.do("proj.add", 1, 2, task_id="one")
        self.assertEqual(done.outcome, ("success", "ack"))
        self.assertEqual((done.result, done.exception, done.traceback, done.leaves), ("3", None, None, False))
        self.assertLess(0, done.runtime)
        ((task_id, state, meta),) = done.stores
        self.assertEqual((task_id, state, meta["result"], meta["status"]), ("one", "SUCCESS", 3, "SUCCESS"))

    def test_the_request_has_what_the_message_had(self):
        done = self.do(
            "proj.about",
            task_id="me",
            headers={"retries": 2, "root_id": "root", "extra": "mine", "group": "g"},
            properties={"reply_to": "there", "correlation_id": "me", "priority": 4},
            delivery_info={"exchange": "ex", "routing_key": "rk", "priority": 4, "redelivered": True},
        )
        self.assertEqual(
            done.stores[0][2]["result"],
            {
                "id": "me",
                "hostname": "w1@here",
                "reply_to": "there",
                "correlation_id": "me",
                "retries": 2,
                "delivery_info": {"exchange": "ex", "routing_key": "rk", "priority": 4, "redelivered": True},
                "argsrepr": "()",
                "eager": False,
                "root_id": "root",
                "extra": "mine",
                "group": "g",
                "properties": 4,
            },
        )

    def test_a_failure(self):
        done = self.do("proj.fails", "broken")
        self.assertEqual(done.outcome, ("failure", "ack"))
        self.assertEqual(
            done.exception,
            {
                "type": "ValueError",
                "module": "builtins",
                "message": "broken",
                "repr": "ValueError('broken')",
                "bases": [["builtins", "Exception"], ["builtins", "BaseException"]],
            },
        )
        self.assertIn("raise ValueError(text)", done.traceback)
        self.assertEqual(done.stores[0][2]["result"]["exc_message"], ["broken"])

    def test_the_table_of_outcomes(self):
        rejected = "rejected"
        for name, args, expected in (
            ("proj.late", ["fine"], ("success", "ack")),
            ("proj.late", ["fail"], ("failure", "ack")),
            ("proj.late_rejects", [], ("failure", "reject")),
            ("proj.late", ["reject"], (rejected, "reject")),
            ("proj.late", ["requeue"], (rejected, "requeue")),
            ("proj.late", ["ignore"], ("ignored", "ack")),
            ("proj.late", ["retry"], ("retry", "ack")),
            ("proj.early", ["fine"], ("success", "ack")),
            ("proj.early", ["fail"], ("failure", "ack")),
            ("proj.early", ["reject"], (rejected, "ack")),
            ("proj.early", ["requeue"], (rejected, "ack")),
            ("proj.early", ["ignore"], ("ignored", "ack")),
            ("proj.early", ["retry"], ("retry", "ack")),
            ("proj.fails_expectedly", [], ("failure", "ack")),
            ("proj.unstorable", [], ("failure", "ack")),
            ("proj.odd", [], ("failure", "ack")),
            ("proj.unprintable", [], ("failure", "ack")),
            ("proj.deep", [], ("failure", "ack")),
            ("proj.surrogate", [], ("success", "ack")),
            ("proj.noted", [], ("success", "ack")),
            ("proj.noted", [True], ("failure", "ack")),
            ("proj.nothing", [], ("failure", "reject")),
            ("proj.typed", [], ("failure", "ack")),
        ):
            with self.subTest(name=name, args=args):
                self.assertEqual(self.do(name, *args).outcome, expected)

    def test_a_rejected_task_has_failed_since_5_7(self):
        done = self.do("proj.late", "reject", task_id="r")
        if VERSION >= (5, 7):
            self.assertEqual(done.exception["type"], "Reject")
            self.assertEqual([state for _, state, _ in done.stores], ["FAILURE"])
        else:
            self.assertIsNone(done.exception)
            self.assertEqual(done.stores, [])

    def test_a_retry_publishes_before_it_is_reported(self):
        done = self.do("proj.late", "retry", task_id="again", headers={"retries": 0})
        self.assertEqual([state for _, state, _ in done.stores], ["RETRY"])
        self.assertEqual(done.exception["repr"], "KeyError('later')")
        ((headers, _, _),) = self.redis.messages()
        self.assertEqual((headers["id"], headers["retries"], headers["task"]), ("again", 1, "proj.late"))

    def test_retries_run_out(self):
        first = self.do("proj.stubborn")
        self.assertEqual((first.outcome, first.exception["repr"]), (("retry", "ack"), "OSError('down')"))
        last = self.do("proj.stubborn", headers={"retries": 1})
        self.assertEqual((last.outcome, last.exception["type"]), (("failure", "ack"), "OSError"))

    def test_callbacks_chains_and_errbacks_are_sent(self):
        def signature(name):
            return {
                "task": name,
                "args": [],
                "kwargs": {},
                "options": {},
                "subtask_type": None,
                "immutable": False,
            }

        self.do(
            "proj.add",
            1,
            2,
            embed={"callbacks": [signature("proj.echo")], "chain": [signature("proj.fails")]},
        )
        sent = [(headers["task"], body[0]) for headers, body, _ in self.redis.messages()]
        self.assertEqual(sent, [("proj.echo", [3]), ("proj.fails", [3])])
        self.redis.client.flushall()
        done = self.do("proj.fails", embed={"errbacks": [signature("proj.echo")]}, task_id="f")
        self.assertEqual(done.state, "failure")

    def test_a_failed_chain_stores_the_failure_of_its_steps(self):
        step = {
            "task": "proj.echo",
            "args": [],
            "kwargs": {},
            "options": {"task_id": "step"},
            "subtask_type": None,
            "immutable": False,
        }
        done = self.do("proj.fails", embed={"chain": [step]}, task_id="first")
        self.assertEqual(
            sorted((one, state) for one, state, _ in done.stores), [("first", "FAILURE"), ("step", "FAILURE")]
        )

    def test_a_replaced_task_is_ignored(self):
        done = self.do("proj.replaced", task_id="old")
        self.assertEqual(done.outcome, ("ignored", "ack"))
        self.assertEqual([headers["id"] for headers, _, _ in self.redis.messages()], ["old"])

    def test_a_request_class_of_the_task_is_used(self):
        self.do("proj.noted")
        self.do("proj.noted", True)
        self.assertIn("noted start of proj.noted", self.child.log())
        self.assertIn("noted failure of proj.noted", self.child.log())

    def test_a_request_class_of_the_task_sees_revocations(self):
        done = self.do("proj.noted", task_id="x", headers={"expires": "2001-01-01T00:00:00+00:00"})
        self.assertEqual(done.outcome, ("revoked", "ack"))
        self.assertEqual([state for _, state, _ in done.stores], ["REVOKED"])

    def test_a_task_out_of_memory_has_failed(self):
        done = self.do("proj.hungry")
        self.assertEqual((done.outcome, done.leaves), (("failure", "ack"), False))
        self.assertEqual(self.do("proj.add", 1, 2).result, "3")

    def test_a_task_that_exits(self):
        for name, code, state, fate in (
            ("proj.exits", 3, "failure", "ack"),
            ("proj.leaves", 5, "rejected", "requeue"),
        ):
            child = self.template.fork(store=True)
            with self.subTest(name=name):
                child.run(name, code)
                if BILLIARD < (4, 3):
                    with self.assertRaises(Ended):
                        child.done()
                    self.assertEqual(child.shown()[0], child.tag)
                else:
                    done = child.done()
                    self.assertTrue(done.leaves)
                    self.assertEqual(done.outcome, (state, fate))
                    if state == "failure":
                        self.assertEqual(done.exception["type"], "WorkerLostError")
                self.assertEqual(self.template.exit_of(child)["code"], code)

    def test_other_content(self):
        plain = pickle.dumps(((3, 4), {}, {}))
        done = self.do(
            "proj.add", body=plain, content_type="application/x-python-serialize", content_encoding="binary"
        )
        self.assertEqual(done.result, "7")
        done = self.do(
            "proj.add",
            body=zlib.compress(json.dumps([[5, 6], {}, {}]).encode()),
            headers={"compression": "application/x-gzip"},
        )
        self.assertEqual(done.result, "11")

    def test_messages_of_protocol_1(self):
        body = {"task": "proj.add", "id": "old", "args": [1], "kwargs": {"y": 5}, "retries": 0}
        for headers in ({}, {"x": 1}):
            self.child.tag += 1
            self.child.send(
                "R",
                self.child.tag,
                {
                    "headers": headers,
                    "properties": {"correlation_id": "old"},
                    "delivery_info": {
                        "exchange": "",
                        "routing_key": "celery",
                        "priority": 0,
                        "redelivered": False,
                    },
                    "content_type": "application/json",
                    "content_encoding": "utf-8",
                },
                json.dumps(body).encode(),
            )
            done = self.child.done()
            self.assertEqual((done.outcome, done.result), (("success", "ack"), "6"))
            self.assertEqual(done.stores[0][0], "old")

    def test_messages_that_cannot_run_are_rejected(self):
        yaml = {"content_type": "application/x-yaml"}
        for title, options in (
            ("not decodable", {"body": b"[["}),
            ("not a task's body", {"body": b"7"}),
            ("too short", {"body": b"[[1, 2]]"}),
            ("not accepted", {**yaml, "body": b"[]"}),
            ("unknown content", {"content_type": "text/odd", "body": b"x"}),
            ("not compressed", {"headers": {"compression": "application/x-gzip"}}),
            ("unknown compression", {"headers": {"compression": "odd"}}),
            ("no id", {"headers": {"id": None}}),
            ("no task", {"headers": {"task": None}}),
        ):
            with self.subTest(title=title):
                done = self.do("proj.late", "fine", **options)
                self.assertEqual(done.state, "failure")
                self.assertIsNotNone(done.exception)
                if title != "no id":
                    self.assertEqual(done.disposition, "reject", done.meta)
                self.assertEqual(self.child.do("proj.add", 1, 1).result, "2")

    def test_an_unknown_task_has_failed_as_celery_tells_it(self):
        done = self.do("proj.nothing", task_id="u")
        self.assertEqual(done.exception["type"], "NotRegistered")
        self.assertEqual([(one, state) for one, state, _ in done.stores], [("u", "FAILURE")])
        self.assertIn("Received unregistered task of type 'proj.nothing'", self.child.log())

    def test_output_of_a_task_does_not_reach_the_socket(self):
        self.assertEqual(self.do("proj.noisy").result, "'quiet'")
        self.child.output.seek(0)
        self.assertEqual(self.child.output.read(), b"garbage \xff\n")
        self.assertIn("WARNING/ForkPoolWorker-1] printed", self.child.log())


if __name__ == "__main__":
    unittest.main(argv=sys.argv)
