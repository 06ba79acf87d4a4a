"""The steward: post-mortems (`P`) and signals of Celery's main process (`Y`)."""

import sys
import unittest

import apps
import celery
from harness import Folder, Redis, Template, message

VERSION = (celery.VERSION.major, celery.VERSION.minor)

SIGNALS = """

def note(name):
    def receiver(sender=None, **kwargs):
        told = {key: value for key, value in kwargs.items() if key in ("sig", "how", "exitcode", "terminated",
                "signum", "expired")}
        host = getattr(sender, "hostname", sender)
        print(f"signal {name} {type(sender).__name__} {host} {sorted(told.items())}")
    return receiver


for each in ("worker_ready", "worker_shutting_down", "worker_shutdown", "heartbeat_sent", "task_revoked",
             "task_failure", "task_retry"):
    getattr(signals, each).connect(note(each), weak=False)


@app.task(bind=True, acks_late=True, acks_on_failure_or_timeout=False)
def strict(self):
    pass


@app.task(acks_late=True)
def lenient():
    pass


if hasattr(app.Task, "retry_on_worker_lost"):
    @app.task(acks_late=True, retry_on_worker_lost=True, default_retry_delay=0)
    def again():
        pass
"""


class StewardChild(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.redis = Redis()
        cls.folder = Folder({"proj.py": apps.SCENES + SIGNALS})
        cls.template = Template(cls.folder, env={"TEST_REDIS": cls.redis.url})
        cls.hello = cls.template.hello()
        cls.steward = cls.template.fork(store=True, role="steward")

    @classmethod
    def tearDownClass(cls):
        cls.template.stop()
        cls.folder.remove()
        cls.redis.stop()

    def setUp(self):
        self.redis.client.flushall()

    def examine(self, kind, name, *args, started=1.5, task_id="gone", embed=None, headers=None, **details):
        meta, body = message(name, *args, task_id=task_id, embed=embed, headers=headers)
        self.steward.tag += 1
        self.steward.send(
            "P", self.steward.tag, {**meta, "kind": kind, "started": started, "pid": 1, **details}, body
        )
        return self.steward.done()

    def tell(self, **meta):
        self.steward.tag += 1
        self.steward.send("Y", self.steward.tag, meta)
        return self.steward.done()

    def states(self, done):
        return [(task_id, state) for task_id, state, _ in done.stores]

    def test_it_is_the_main_process_in_the_log(self):
        self.examine("timeout", "proj.add", limit=3)
        self.assertIn(
            "ERROR/MainProcess] Hard time limit (3s) exceeded for proj.add[gone]", self.steward.log()
        )
        self.assertNotIn("process init", self.steward.log())

    def test_a_hard_limit(self):
        # Before 5.5 on_failure, which knew no limits, had the first word.
        strict = "requeue" if VERSION >= (5, 5) else "reject"
        for name, fate in (("proj.add", "ack"), ("proj.lenient", "ack"), ("proj.strict", strict)):
            with self.subTest(name=name):
                done = self.examine("timeout", name, limit=3)
                # Before 5.7 both on_failure and on_timeout store it, but for one that runs again.
                twice = VERSION < (5, 7) and fate != "requeue"
                self.assertEqual(self.states(done), [("gone", "FAILURE")] * (1 + twice))
                told = [kind for kind, _ in done.events if kind == "task-failed"]
                self.assertEqual(len(told), 0 if VERSION < (5, 7) and fate == "requeue" else 1)
                if told:
                    self.assertEqual(done.exception["repr"], "TimeLimitExceeded(3)")
                self.assertEqual(done.outcome, ("failure" if told else "rejected", fate))

    def test_a_limit_is_told_as_it_was_written(self):
        for limit, told in ((3.0, 3), (1.5, 1.5)):
            done = self.examine("timeout", "proj.add", limit=limit, headers={"timelimit": [limit, None]})
            self.assertEqual(done.exception["repr"], f"TimeLimitExceeded({limit})")
            done = self.examine("timeout", "proj.add", limit=limit)
            self.assertEqual(done.exception["repr"], f"TimeLimitExceeded({told})")

    def test_a_revoked_stamp_is_named(self):
        stamped = {"stamped_headers": ["tenant"], "stamps": {"tenant": ["acme"]}}
        done = self.examine(
            "revoked", "proj.add", started=None, task_id="st", headers=stamped, stamps={"tenant": ["acme"]}
        )
        self.assertEqual(done.outcome, ("revoked", "ack"))
        self.assertIn("proj.add[st] (revoked by header: {'tenant': 'acme'})", self.steward.log())

    def test_a_lost_child(self):
        for name, state, fate in (
            ("proj.add", "failure", "ack"),
            ("proj.lenient", "failure", "ack"),
            ("proj.strict", "failure", "reject"),
            ("proj.leaves", "rejected", "requeue"),
        ):
            with self.subTest(name=name):
                done = self.examine("lost", name, signal=9)
                self.assertEqual(done.outcome, (state, fate))
                if state == "failure":
                    self.assertEqual(self.states(done), [("gone", "FAILURE")])
                    text = f"Worker exited prematurely: signal 9 (SIGKILL) Job: {self.steward.tag}."
                    self.assertEqual(done.exception["message"], text)
                    self.assertIn("WorkerLostError", done.traceback)
                else:
                    self.assertEqual(done.stores, [])
        done = self.examine("lost", "proj.add", code=7)
        text = f"Worker exited prematurely: exitcode 7 Job: {self.steward.tag}."
        self.assertEqual(done.exception["message"], text)

    def test_one_that_never_runs_again_has_failed(self):
        for name in ("proj.leaves", "proj.again"):
            with self.subTest(name=name):
                done = self.examine("poison", name, signal=9)
                self.assertEqual((done.state, self.states(done)), ("failure", [("gone", "FAILURE")]))
                self.assertNotEqual(done.disposition, "requeue")
        # It was for that one alone.
        self.assertEqual(self.examine("lost", "proj.leaves", signal=9).outcome, ("rejected", "requeue"))

    @unittest.skipIf(VERSION < (5, 7), "since 5.7")
    def test_a_lost_child_after_its_success(self):
        self.redis.client.set(
            "celery-task-meta-gone",
            '{"status": "SUCCESS", "result": 3, "traceback": null, "children": []}',
        )
        done = self.examine("lost", "proj.lenient", signal=9)
        self.assertEqual((done.outcome, done.stores), (("success", "ack"), []))

    @unittest.skipIf(VERSION < (5, 7), "since 5.7")
    def test_a_lost_child_whose_task_is_to_be_retried(self):
        done = self.examine("lost", "proj.again", signal=9)
        self.assertEqual((done.outcome, self.states(done)), (("retry", "ack"), [("gone", "RETRY")]))
        ((headers, _, _),) = self.redis.messages()
        self.assertEqual((headers["id"], headers["retries"]), ("gone", 1))

    def test_revocations(self):
        for kind, started, details, line in (
            ("revoked", None, {}, "[('expired', False), ('signum', None), ('terminated', False)]"),
            ("expired", None, {}, "[('expired', True), ('signum', None), ('terminated', False)]"),
            ("terminated", 2.5, {"signal": 15}, "('signum', <Signals.SIGTERM: 15>), ('terminated', True)"),
        ):
            with self.subTest(kind=kind):
                done = self.examine(kind, "proj.add", started=started, task_id=kind, **details)
                self.assertEqual((done.outcome, self.states(done)), (("revoked", "ack"), [(kind, "REVOKED")]))
                self.assertIn(line, self.steward.log())
                ((event, fields),) = done.events
                signum = details.get("signal")
                expected = {"terminated": bool(signum), "signum": signum, "expired": kind == "expired"}
                self.assertEqual((event, fields), ("task-revoked", expected))
        self.assertIn("INFO/MainProcess] Task proj.add[revoked] received", self.steward.log())
        self.assertNotIn("INFO/MainProcess] Task proj.add[terminated] received", self.steward.log())
        self.assertIn("INFO/MainProcess] Discarding revoked task: proj.add[revoked]", self.steward.log())
        self.assertIn("INFO/MainProcess] Discarding revoked task: proj.add[expired]", self.steward.log())
        done = self.examine(
            "expired", "proj.add", started=None, headers={"expires": "2001-01-01T00:00:00+00:00"}
        )
        self.assertEqual(done.outcome, ("revoked", "ack"))
        self.assertEqual(self.examine("lost", "proj.add", signal=9).state, "failure")

    def lose_the_only_member_of_a_chord(self, kind="lost", body="body"):
        chord = {
            "task": "proj.echo",
            "args": [],
            "kwargs": {},
            "options": {"task_id": body},
            "subtask_type": None,
            "immutable": False,
            "chord_size": 1,
        }
        self.redis.client.set("celery-taskset-meta-g.s", 1)
        embed, headers = {"chord": chord}, {"group": "g", "group_index": 0}
        return self.examine(kind, "proj.add", signal=9, embed=embed, headers=headers)

    def test_a_chord_hears_of_a_lost_member(self):
        self.lose_the_only_member_of_a_chord()
        self.assertEqual(self.redis.meta("gone")["status"], "FAILURE")

    def test_a_chord_hears_of_a_member_that_was_lost_after_its_success(self):
        meta = '{"status": "SUCCESS", "result": 3, "traceback": null, "children": [], "task_id": "gone"}'
        self.redis.client.set("celery-task-meta-gone", meta)
        done = self.lose_the_only_member_of_a_chord(body="whole")
        self.assertEqual(done.outcome, ("success", "ack"))
        ((headers, (args, _, _), _),) = self.redis.messages()
        self.assertEqual((headers["id"], args), ("whole", [[3]]))

    @unittest.skipIf(VERSION < (5, 7), "since 5.7")
    def test_a_body_that_a_dead_process_has_begun_to_send_is_sent_once(self):
        self.redis.client.set("celery-taskset-meta-g.c", "claimed", px=60_000)
        for kind in ("lost", "part", "part"):
            done = self.lose_the_only_member_of_a_chord(kind, "claimed")
            self.assertEqual((done.disposition, done.look_again), ("ack", 1.0))
        self.assertEqual(self.redis.messages(), [])
        self.redis.client.delete("celery-taskset-meta-g.c")
        # The member has failed, so the chord has: Celery tells the errbacks of its body, and stores that.
        done = self.lose_the_only_member_of_a_chord("part", "claimed")
        self.assertNotIn("look_again", done.meta)
        self.assertEqual(self.states(done), [("claimed", "FAILURE")])

    @unittest.skipIf(VERSION < (5, 7), "since 5.7")
    def test_a_body_that_was_sent_by_a_process_that_died_is_not_sent_again(self):
        meta = '{"status": "SUCCESS", "result": 3, "traceback": null, "children": [], "task_id": "gone"}'
        self.redis.client.set("celery-task-meta-gone", meta)
        self.redis.client.set("celery-task-meta-sent", meta.replace("gone", "sent"))
        done = self.lose_the_only_member_of_a_chord(body="sent")
        self.assertEqual((done.outcome, self.redis.messages()), (("success", "ack"), []))
        self.assertEqual(self.redis.client.keys("celery-taskset-meta-*"), [b"celery-taskset-meta-g.c"])

    def test_errbacks_are_called(self):
        errback = {
            "task": "proj.echo",
            "args": ["e"],
            "kwargs": {},
            "options": {},
            "subtask_type": None,
            "immutable": True,
        }
        self.examine("lost", "proj.add", signal=9, embed={"errbacks": [errback]})
        self.assertEqual([headers["task"] for headers, _, _ in self.redis.messages()], ["proj.echo"])

    def test_a_message_that_cannot_be_read(self):
        done = self.examine("lost", "proj.nothing", signal=9)
        self.assertEqual(done.outcome, ("failure", "reject"))

    def test_signals(self):
        self.assertEqual(
            set(self.hello["receivers"]),
            {"worker_ready", "worker_shutting_down", "worker_shutdown", "heartbeat_sent", "task_revoked"},
        )
        for meta, line in (
            ({"signal": "worker_ready"}, "signal worker_ready Consumer w1@here []"),
            (
                {"signal": "worker_shutting_down", "sig": "SIGQUIT", "how": "Cold", "exitcode": 0},
                "worker_shutting_down str w1@here [('exitcode', 0), ('how', 'Cold'), ('sig', 'SIGQUIT')]",
            ),
            ({"signal": "worker_shutdown"}, "signal worker_shutdown Worker w1@here []"),
            ({"signal": "heartbeat_sent"}, "signal heartbeat_sent Heart"),
        ):
            with self.subTest(line=line):
                self.assertEqual(self.tell(**meta).state, "success")
                self.assertIn(line, self.steward.log())

    def test_it_ends_when_it_is_told_and_when_the_protocol_is_broken(self):
        for op, tag, meta, code in (
            ("X", 0, {}, 0),
            ("Y", 1, {"signal": "odd"}, 70),
            ("P", 1, {"kind": "odd"}, 70),
            ("R", 1, {}, 70),
        ):
            with self.subTest(op=op, meta=meta):
                steward = self.template.fork(role="steward")
                steward.send(op, tag, meta)
                self.assertEqual(self.template.exit_of(steward)["code"], code)

    def test_workers_beside_it_keep_their_numbers(self):
        child = self.template.fork(store=True)
        said = child.do("proj.shared").stores[0][2]["result"]
        self.assertEqual(said["name"], "ForkPoolWorker-1")


if __name__ == "__main__":
    unittest.main(argv=sys.argv)
