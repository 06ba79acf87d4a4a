"""The process of a child: its page, its limits, its end."""

import os
import signal
import struct
import sys
import unittest

import apps
from celery import signals
from harness import HEAD, Ended, Folder, Refused, Template

MB = 1 << 20


class Children(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = Folder({"proj.py": apps.SCENES})
        cls.template = Template(cls.folder)
        cls.template.hello()

    @classmethod
    def tearDownClass(cls):
        cls.template.stop()
        cls.folder.remove()

    def pipe(self):
        """A pipe that a task can wait on: it says on the one that it began, and ends when it is closed."""
        path = os.path.join(self.folder.path, f"pipe-{self.id()}-{len(os.listdir(self.folder.path))}")
        os.mkfifo(path)
        return path

    def test_a_child_is_a_process_of_celerys_prefork_pool(self):
        child = self.template.fork(store=True)
        said = child.do("proj.shared").stores[0][2]["result"]
        self.assertEqual(
            (said["index"], said["daemon"], said["group"]), (self.template.slots - 1, True, child.pid)
        )
        self.assertEqual(said["name"], f"ForkPoolWorker-{self.template.slots}")
        self.assertEqual(said["argv"], ["celery", "-A", "proj", "worker"])
        self.assertEqual(os.path.realpath(said["path0"]), os.path.realpath(self.folder.path))
        self.assertEqual((said["stdin"], said["fast"]), ("/dev/null", None))

    def test_it_ends_when_it_is_told(self):
        child = self.template.fork()
        child.send("X", 0, {})
        ended = self.template.exit_of(child)
        self.assertEqual((ended["code"], ended["signal"]), (0, None))
        self.assertGreater(ended["memory_peak"], 5 * MB)
        if hasattr(signals, "worker_before_create_process"):
            self.assertIn("WARNING/MainProcess] process is coming", self.template.printed())
        self.assertIn("process init", child.log())
        self.assertIn("process shutdown 0", child.log())

    def test_it_ends_when_its_socket_is_closed(self):
        child = self.template.fork()
        child.job.close()
        self.assertEqual(self.template.exit_of(child)["code"], 1)

    def test_what_breaks_the_protocol_ends_it(self):
        for datagram in (
            b"x",
            HEAD.pack(ord("Z"), 0, 1, 2) + b"{}",
            HEAD.pack(ord("R"), 0, 0, 2) + b"{}",
            HEAD.pack(ord("R"), 0, 1, 2) + b"[]",
            HEAD.pack(ord("R"), 9, 1, 2) + b"{}",
        ):
            with self.subTest(datagram=datagram):
                child = self.template.fork()
                child.job.send(datagram)
                self.assertEqual(self.template.exit_of(child)["code"], 70)

    def test_signals_end_it(self):
        for number, code in ((signal.SIGKILL, None), (signal.SIGTERM, 15)):
            with self.subTest(number=number):
                child = self.template.fork()
                child.kill(number)
                ended = self.template.exit_of(child)
                self.assertEqual(ended["code"], code)
                self.assertEqual(ended["signal"], None if code else signal.SIGKILL)

    def test_an_interrupt_does_not(self):
        child = self.template.fork(store=True)
        child.kill(signal.SIGINT)
        self.assertEqual(child.do("proj.echo", 1).result, "1")

    def test_a_terminated_task_is_not_reported(self):
        path = self.pipe()
        child = self.template.fork()
        tag = child.run("proj.waits", path)
        with open(path, "w"):
            child.terminate()
            self.template.exit_of(child)
        self.assertEqual(child.shown()[0], tag)
        with self.assertRaises(Ended):
            child.done()

    def test_a_task_that_kills_its_process_leaves_its_tag_on_the_page(self):
        child = self.template.fork()
        tag = child.run("proj.dies", 7)
        self.assertEqual(self.template.exit_of(child)["code"], 7)
        self.assertEqual(child.shown()[0], tag)

    def test_the_page_shows_what_runs(self):
        path = self.pipe()
        child = self.template.fork(store=True)
        self.assertEqual(child.shown(), (0, 0.0, 0))
        tag = child.run("proj.waits", path)
        with open(path, "w"):
            running, began, count = child.shown()
            self.assertEqual((running, count), (tag, 0))
            self.assertLess(abs(began - os.stat(path).st_mtime), 60)
        child.done()
        child.do("proj.echo", 1)
        self.assertEqual(child.shown()[2] >= 1, True)

    def test_a_soft_limit_is_raised_in_the_task(self):
        for catch, outcome in ((False, "failure"), (True, "success")):
            with self.subTest(catch=catch):
                path = self.pipe()
                child = self.template.fork(store=True)
                tag = child.run("proj.waits", path, catch, task_id="slow")
                with open(path, "w"):
                    done = child.done_after_soft_limit(tag)
                self.assertEqual(done.state, outcome)
                if not catch:
                    self.assertEqual(done.exception["type"], "SoftTimeLimitExceeded")
                self.assertIn(
                    "WARNING/MainProcess] Soft time limit (5s) exceeded for proj.waits[slow]", child.log()
                )

    def test_a_soft_limit_is_raised_once(self):
        path = self.pipe()
        os.mkfifo(path + "2")
        child = self.template.fork(store=True)
        tag = child.run("proj.waits_twice", path)
        with open(path, "w"):
            child.soft_limit_until(tag, lambda: "caught" in child.log())
            with open(path + "2", "w") as pipe:
                for _ in range(5):
                    child.soft_limit(tag)
                pipe.write("go on")
        self.assertEqual(child.done().result, "'go on'")

    def test_a_late_soft_limit_meets_nobody(self):
        path = self.pipe()
        child = self.template.fork(store=True)
        first = child.run("proj.echo", 1)
        child.done()
        child.soft_limit(first)
        child.run("proj.waits", path)
        with open(path, "w"):
            child.soft_limit(first)
        self.assertEqual(child.done().state, "success")

    def test_many_signals_at_the_border_of_tasks_break_nothing(self):
        child = self.template.fork(store=True)
        for _ in range(300):
            tag = child.run("proj.echo", "x" * 200)
            child.soft_limit(tag)
            self.assertIn(child.done().state, ("success", "failure"))
        self.assertEqual(child.do("proj.echo", 1).state, "success")

    def test_a_hundred_megabytes_pass_both_ways(self):
        child = self.template.fork(store=True)
        body = b'[["' + b"x" * (100 * MB) + b'"], {}, {}]'
        child.run("proj.echo", body=body)
        *_, document = child.receive()
        self.assertGreater(len(document), 100 * MB)
        self.assertEqual(child.done().outcome, ("success", "ack"))

    def test_children_end_with_the_template(self):
        folder = Folder({"proj.py": apps.SCENES})
        self.addCleanup(folder.remove)
        template = Template(folder)
        self.addCleanup(template.stop)
        template.hello()
        child = template.fork()
        template.process.kill()
        child.gone()
        with self.assertRaises((Ended, ConnectionError)):
            child.receive()

    def test_a_fork_that_the_system_refuses(self):
        folder = Folder(
            {
                "proj.py": apps.SCENES
                + """
import errno
fork = os.fork
def refuse():
    os.fork = fork
    raise OSError(errno.EAGAIN, "no more processes")
os.fork = refuse
del os.pidfd_open
"""
            }
        )
        self.addCleanup(folder.remove)
        template = Template(folder)
        self.addCleanup(template.stop)
        template.hello()
        with self.assertRaises(Refused):
            template.fork()
        self.assertIn("cannot fork a child", template.printed())
        self.assertEqual(template.fork(store=True).do("proj.echo", 1).state, "success")

    def test_descriptors_are_those_that_were_given(self):
        child = self.template.fork()
        listed = {}
        for name in os.listdir(f"/proc/{child.pid}/fd"):
            listed[int(name)] = os.readlink(f"/proc/{child.pid}/fd/{name}")
        self.assertEqual(listed[0], "/dev/null")
        sockets = [path for path in listed.values() if path.startswith("socket:")]
        self.assertEqual(len(sockets), 1, listed)
        self.assertEqual([path for path in listed.values() if "pidfd" in path], [])
        self.assertEqual(struct.calcsize("<BBQI"), HEAD.size)


if __name__ == "__main__":
    unittest.main(argv=sys.argv)
