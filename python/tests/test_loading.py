"""Loading an app: `hello`, and a sentence for everything that can be wrong with it."""

import os
import sys
import tempfile
import unittest

import apps
import celery
from harness import Ended, Folder, Template

PLAIN = """
    from celery import Celery
    app = Celery("proj", broker="redis://127.0.0.1:1/0", backend="redis://127.0.0.1:1/0")
    @app.task
    def add(x, y):
        return x + y
"""


class Loading(unittest.TestCase):
    def template(self, files, **start):
        folder = Folder(files)
        self.addCleanup(folder.remove)
        template = Template(folder, **start)
        self.addCleanup(template.stop)
        return template

    def failed(self, files, kind="app", **start):
        frame = self.template(files, **start).failed()
        self.assertEqual(frame["kind"], kind, frame)
        shown = frame["traceback"] or ""
        for hidden in ("celeriac_child/", "importlib", "celery/app/utils.py"):
            self.assertNotIn(hidden, shown if kind != "error" else "")
        return frame

    def test_hello_describes_the_app(self):
        files = {
            "proj.py": apps.SCENES
            + """
import threading
from datetime import timedelta
from celery import bootsteps, signals
from celery.schedules import crontab
from kombu import Queue
app.conf.task_queues = [Queue("low", routing_key="slow", max_priority=5), Queue("high")]
app.conf.beat_schedule = {"tidy": {"task": "proj.noop", "schedule": crontab(hour=3)}}
app.conf.result_expires = timedelta(hours=2)
app.conf.mine = {1, 2}

@signals.worker_ready.connect
def on_ready(**kwargs):
    pass

@signals.celeryd_after_setup.connect
def choose(sender, instance, **kwargs):
    instance.app.amqp.queues.select_add(Queue(sender + ".own"))

class Step(bootsteps.StartStopStep):
    pass

app.steps["consumer"].add(Step)
threading.Thread(target=threading.Event().wait, name="mine", daemon=True).start()

@app.task(Strategy="batches:apply", rate_limit="3/m", time_limit=9, max_retries=None)
def special():
    pass
"""
        }
        hello = self.template(files, settings={"task_acks_late": True}, queues=["low"]).hello()
        self.assertEqual(hello["protocol"], 1)
        self.assertEqual((hello["app"], hello["hostname"], hello["threads"]), ("proj", "w1@here", ["mine"]))
        self.assertEqual([queue["name"] for queue in hello["queues"]], ["low", "w1@here.own"])
        self.assertEqual(
            hello["queues"][0],
            {"name": "low", "exchange": "celery", "type": "direct", "routing_key": "slow", "priority_max": 5},
        )
        self.assertEqual(hello["receivers"], ["worker_ready"])
        self.assertEqual(hello["steps"], ["proj.Step"])
        backend = hello["backend"]
        self.assertEqual((backend["class"], backend["own"]), ("celery.backends.redis.RedisBackend", False))
        self.assertEqual((backend["expires"], backend["prefix"]), (7200, "celery-task-meta-"))
        settings = hello["settings"]
        self.assertEqual(settings["task_acks_late"], True)
        self.assertEqual(settings["result_expires"], 7200)
        self.assertIn("crontab", settings["beat_schedule"]["tidy"]["schedule"]["repr"])
        self.assertEqual(settings["mine"], {"repr": "{1, 2}"})
        self.assertEqual(settings["broker_url"], "redis://127.0.0.1:1/0")
        self.assertIsNone(settings["timezone"])
        for name in ("task_acks_late", "broker_url", "result_backend", "task_queues", "mine"):
            self.assertIn(name, hello["changed"])
        for name in ("include", "timezone", "worker_concurrency", "broker_read_url"):
            self.assertNotIn(name, hello["changed"])
        tasks = hello["tasks"]
        self.assertEqual(tasks["proj.noted"]["request"], "proj.Noted")
        self.assertIsNone(tasks["proj.add"]["request"])
        special = tasks["proj.special"]
        self.assertEqual((special["strategy"], special["rate_limit"]), ("batches.apply", "3/m"))
        self.assertEqual((special["time_limit"], special["max_retries"]), (9, None))
        self.assertEqual(tasks["proj.late_rejects"]["acks_on_failure"], False)
        self.assertEqual(tasks["proj.late_rejects"]["acks_on_timeout"], False)
        self.assertTrue(tasks["proj.awaited"]["coroutine"])
        self.assertFalse(tasks["proj.add"]["coroutine"])
        self.assertTrue(tasks["proj.add"]["acks_late"])
        self.assertIn("celery.backend_cleanup", tasks)
        banner = "\n".join(hello["banner"])
        self.assertIn("w1@here v5.", banner)
        self.assertIn(". proj.add", banner)

    def test_an_app_may_be_named_in_every_way_that_celery_knows(self):
        files = {
            "proj/__init__.py": "",
            "proj/celery.py": PLAIN,
            "proj/jobs.py": PLAIN.replace("app", "other"),
        }
        files = {name: text.replace("    ", "", 0) for name, text in files.items()}
        for name in ("proj", "proj.celery", "proj.celery:app", "proj.jobs:other", "proj.jobs"):
            with self.subTest(name=name):
                self.assertEqual(self.template(files, app=name).hello()["app"], "proj")

    def test_settings_may_have_a_prefix_and_a_module(self):
        files = {
            "proj.py": """
                from celery import Celery
                app = Celery("proj")
                app.config_from_object("conf", namespace="CELERY")
            """,
            "conf.py": "CELERY_BROKER_URL = 'redis://h:1/2'\nCELERY_TASK_ACKS_LATE = True\nOTHER = 1\n",
        }
        hello = self.template(files).hello()
        self.assertEqual(hello["broker_url"], "redis://h:1/2")
        self.assertEqual(hello["settings"]["task_acks_late"], True)
        self.assertEqual(hello["changed"][:2], ["broker_url", "task_acks_late"])

    def test_the_command_line_beats_the_app(self):
        hello = self.template(
            {"proj.py": PLAIN},
            broker_url="redis://x:1/0",
            result_backend="redis://y:1/0",
            hostname="%n@mine",
            loglevel="DEBUG",
            concurrency=3,
            exclude_queues=None,
        ).hello()
        self.assertEqual((hello["broker_url"], hello["result_backend"]), ("redis://x:1/0", "redis://y:1/0"))
        self.assertTrue(hello["hostname"].endswith("@mine"))
        self.assertIn("celery.chord", "\n".join(hello["banner"]))
        self.assertIn("concurrency: 3 (prefork)", "\n".join(hello["banner"]))

    def test_modules_named_like_the_standard_librarys_do_not_reach_the_shim(self):
        trap = "raise RuntimeError('the shim imported a module of the app')\n"
        names = (
            "queue",
            "json",
            "socket",
            "struct",
            "select",
            "array",
            "mmap",
            "signal",
            "logging",
            "traceback",
            "celery",
            "kombu",
            "billiard",
            "typing",
            "vine",
            "frames",
            "app",
            "child",
            "page",
            "results",
        )
        files = {f"{name}.py": trap for name in names}
        self.assertEqual(self.template({**files, "proj.py": PLAIN}).hello()["app"], "proj")

    def test_an_app_with_a_taken_name_is_refused(self):
        for name, files in (
            ("queue", {"queue.py": PLAIN}),
            ("queue.celery_app", {"queue/__init__.py": "", "queue/celery_app.py": PLAIN}),
            ("celery", {"celery.py": PLAIN}),
            ("celery:app", {"celery.py": PLAIN}),
        ):
            with self.subTest(name=name):
                frame = self.failed(files, app=name)
                self.assertIn("is already the name of", frame["text"])
                self.assertIn("Rename", frame["hint"])

    def test_a_helper_with_a_taken_name_is_explained(self):
        frame = self.failed({"proj.py": "from queue import dispatcher\n", "queue.py": "dispatcher = 1\n"})
        self.assertIn("proj.py, line 1", frame["text"])
        self.assertIn("queue.py has the name of a module of Python's standard library", frame["hint"])

    def test_a_module_that_is_missing(self):
        frame = self.failed({}, app="nope.tasks")
        self.assertIn("The module nope, named by -A nope.tasks, was not found", frame["text"])
        self.assertIn("--workdir", frame["hint"])

    def test_an_import_that_is_missing(self):
        frame = self.failed({"proj.py": "import helper\n", "helper.py": "x = 1\nimport not_there\n"})
        self.assertIn("helper.py, line 2", frame["text"])
        self.assertIn("imports not_there, which this Python does not have", frame["text"])
        self.assertIn("proj.py", frame["traceback"])

    def test_a_syntax_error(self):
        frame = self.failed({"proj.py": "x = 1\ndef broken(:\n"})
        self.assertIn("proj.py, line 2", frame["text"])
        self.assertIn("SyntaxError", frame["text"])

    def test_an_error_while_the_app_is_imported(self):
        frame = self.failed({"proj.py": "import os\n\nos.environ['NOT_SET_AT_ALL']\n"})
        self.assertIn("proj.py, line 3: KeyError: 'NOT_SET_AT_ALL'", frame["text"])

    def test_an_attribute_error_in_the_app_is_told_as_such(self):
        frame = self.failed({"proj.py": "import os\nos.nothing_of_the_kind\n"})
        self.assertIn("proj.py, line 2: AttributeError", frame["text"])

    def test_a_module_without_an_app(self):
        frame = self.failed({"proj.py": "x = 1\n"})
        self.assertEqual(frame["text"], "The module proj, named by -A, holds no Celery app.")
        frame = self.failed({"proj.py": "x = 1\n"}, app="proj:app")
        self.assertEqual(frame["text"], "The module proj has no app, which -A proj:app names.")

    def test_something_else_named_app(self):
        frame = self.failed({"proj.py": "class Flask: pass\napp = Flask()\n"})
        self.assertEqual(frame["text"], "-A proj names a proj.Flask, not a Celery app.")

    def test_an_app_that_exits(self):
        frame = self.failed({"proj.py": "import sys\nsys.exit(4)\n"})
        self.assertIn("proj.py, line 2: the app called sys.exit(4)", frame["text"])

    def test_an_included_module_that_fails(self):
        frame = self.failed(
            {
                "proj.py": "from celery import Celery\napp = Celery('proj', include=['jobs'])\n",
                "jobs.py": "x = 1\n1 / 0\n",
            }
        )
        self.assertIn("jobs.py, line 2: ZeroDivisionError", frame["text"])

    def test_settings_that_celery_refuses(self):
        files = {
            "proj.py": PLAIN.replace(
                "@app.task", "app.conf.task_create_missing_queues = False\n    @app.task"
            )
        }
        frame = self.failed(files, queues=["unknown"])
        self.assertIn("unknown", frame["text"])

    def test_a_python_without_celery(self):
        with tempfile.TemporaryDirectory() as folder:
            import venv

            venv.create(folder, symlinks=True, with_pip=False)
            frame = self.failed(
                {"proj.py": PLAIN}, kind="celery", python=os.path.join(folder, "bin", "python")
            )
        self.assertIn("Celery is not installed for", frame["text"])

    def test_a_celery_of_another_time(self):
        fake = """
            import collections
            VERSION = collections.namedtuple("V", "major minor")(4, 4)
            __version__ = "4.4.7"
        """
        folder = Folder({"celery/__init__.py": fake})
        self.addCleanup(folder.remove)
        frame = self.failed({"proj.py": PLAIN}, kind="celery", env={"PYTHONPATH": str(folder.path)})
        self.assertIn("Celery 4.4.7 is installed", frame["text"])

    def test_a_celery_that_does_not_work(self):
        folder = Folder(
            {"kombu/__init__.py": "", "kombu/utils/__init__.py": "raise AttributeError('no such thing')"}
        )
        self.addCleanup(folder.remove)
        frame = self.failed({"proj.py": PLAIN}, kind="celery", env={"PYTHONPATH": str(folder.path)})
        self.assertIn(f"Celery {celery.__version__} cannot be imported", frame["text"])
        folder = Folder({"celery.py": ""})
        self.addCleanup(folder.remove)
        frame = self.failed({"proj.py": PLAIN}, kind="celery", env={"PYTHONPATH": str(folder.path)})
        self.assertIn("is not Celery, but has its name", frame["text"])

    def test_a_python_that_is_too_old(self):
        frame = self.failed(
            {"proj.py": PLAIN, "old/sitecustomize.py": "import sys\nsys.version_info = (3, 8, 1)\n"},
            kind="python",
            env={"PYTHONPATH": "old"},
        )
        self.assertIn("is Python 3.8", frame["text"])

    def test_another_protocol(self):
        self.assertIn("protocol 9", self.failed({"proj.py": PLAIN}, kind="error", protocol=9)["text"])

    def test_a_fault_of_the_shim_is_told(self):
        frame = self.failed({"proj.py": PLAIN}, kind="error", options=7)
        self.assertIn("celeriac", frame["text"])
        self.assertIn("celeriac_child/app.py", frame["traceback"])

    def test_the_end_of_the_worker_ends_the_template(self):
        template = self.template({"proj.py": PLAIN})
        template.hello()
        template.control.close()
        template.process.wait(20)

    def test_a_frame_out_of_place_ends_the_template(self):
        template = self.template({"proj.py": PLAIN})
        template.hello()
        template.send({"op": "nonsense"})
        self.assertEqual(template.process.wait(20), 70)
        with self.assertRaises(Ended):
            template.receive()

    def test_an_app_that_is_only_looked_at_hears_of_no_worker(self):
        app = """
            from celery import Celery, signals
            app = Celery("proj", broker="redis://host/3", include=["more"])
            for signal in (signals.celeryd_init, signals.worker_init, signals.celeryd_after_setup):
                signal.connect(lambda **_: print("a signal of a worker"), weak=False)
        """
        more = "from proj import app\n@app.task\ndef mine(): pass\n"
        template = self.template({"proj.py": app, "more.py": more}, look=True)
        hello = template.hello()
        self.assertEqual((hello["broker_url"], hello["hostname"]), ("redis://host/3", "w1@here"))
        self.assertIn("more.mine", hello["tasks"])
        self.assertEqual([queue["name"] for queue in hello["queues"]], ["celery"])
        template.send({"op": "exit"})
        template.process.wait(20)
        self.assertNotIn("a signal of a worker", template.printed())

    def test_exit_ends_the_template(self):
        template = self.template({"proj.py": PLAIN})
        template.hello()
        template.send({"op": "exit"})
        self.assertEqual(template.process.wait(20), 0)


if __name__ == "__main__":
    unittest.main(argv=sys.argv)
