"""The app's settings: what overrules them, which of them Celery does not know, how tasks are retried."""

import unittest

from harness import Folder, Redis, Template

APP = """
    from celery import Celery
    app = Celery("proj", broker="redis://127.0.0.1:1/0")
"""
TASKS = """
    class Own(app.Task):
        default_retry_delay = 7

    @app.task
    def plain():
        pass

    @app.task(default_retry_delay=5)
    def says():
        pass

    @app.task(base=Own)
    def inherits():
        pass

    @app.task(bind=True, autoretry_for=(ValueError,), max_retries=1)
    def fails(self):
        raise ValueError("again")

    @app.task(bind=True, autoretry_for=(ValueError,), retry_backoff=50, retry_jitter=False, max_retries=1)
    def fails_later(self):
        raise ValueError("again")

    @app.task
    def delays():
        return [task.default_retry_delay for task in (plain, says, inherits)]
"""


class Settings(unittest.TestCase):
    def template(self, source, files=None, **start):
        folder = Folder({"proj.py": source, **(files or {})})
        self.addCleanup(folder.remove)
        template = Template(folder, **start)
        self.addCleanup(template.stop)
        return template

    def test_the_worker_overrules_the_app_however_it_is_configured(self):
        given = {"task_time_limit": 9, "task_acks_late": True, "task_default_queue": "ours"}
        late = """
    from celery.signals import celeryd_init
    @celeryd_init.connect
    def late(conf=None, **kwargs):
        conf.task_default_queue = "theirs"
"""
        one = "\n    @app.task(name='one')\n    def one():\n        pass\n"
        new = {"conf.py": "task_time_limit = 30\ntask_acks_late = False\n"}
        old = {"conf.py": "CELERYD_TASK_TIME_LIMIT = 30\nCELERY_ACKS_LATE = False\n"}
        prefixed = {"conf.py": "CELERY_TASK_TIME_LIMIT = 30\nCELERY_TASK_ACKS_LATE = False\n"}
        for files, load in (
            (new, "app.config_from_object('conf')"),
            (old, "app.config_from_object('conf')"),
            (prefixed, "app.config_from_object('conf', namespace='CELERY')"),
            (None, "app.conf.update(task_time_limit=30, task_acks_late=False)"),
        ):
            with self.subTest(load=load, files=files):
                source = APP + f"    {load}\n" + late + one
                hello = self.template(source, files, settings=given).hello()
                self.assertEqual({name: hello["settings"][name] for name in given}, given)
                self.assertLessEqual(set(given), set(hello["changed"]))
                task = hello["tasks"]["one"]
                # Before Celery 5.7 the limit is the pool's alone.
                self.assertIn(task["time_limit"], (9, None))
                self.assertTrue(task["acks_late"])

    def test_options_of_the_broker_are_merged(self):
        source = APP + "    app.conf.broker_transport_options = {'visibility_timeout': 60, 'sep': ':'}\n"
        hello = self.template(
            source,
            transport_options={"global_keyprefix": "a:", "visibility_timeout": 5.0},
            result_options={"global_keyprefix": "r"},
        ).hello()
        self.assertEqual(
            hello["settings"]["broker_transport_options"],
            {"visibility_timeout": 5.0, "sep": ":", "global_keyprefix": "a:"},
        )
        self.assertEqual(hello["settings"]["result_backend_transport_options"], {"global_keyprefix": "r"})

    def test_a_broker_in_parts_is_one(self):
        source = """
            from celery import Celery
            app = Celery("proj")
            app.conf.update(broker_transport="redis", broker_host="there", broker_port=7, broker_vhost="3",
                            broker_user="me", broker_password="a b")
        """
        hello = self.template(source).hello()
        self.assertEqual(hello["broker_url"], "redis://me:a%20b@there:7/3")

    def test_settings_that_celery_does_not_know_are_told(self):
        names = "task_ack_late = 1\nimport os\n_hidden = 1\ntimezone = 'UTC'\nresult_extended = True\n"
        hello = self.template(APP + "    app.config_from_object('conf')\n", {"conf.py": names}).hello()
        self.assertEqual(hello["unknown"], {"task_ack_late": 1})
        names = "CELERY_TASK_ACK_LATE = 1\nTASK_LATE = 2\nCELERY_TASK_ACKS_LATE = True\n"
        load = "    app.config_from_object('conf', namespace='CELERY')\n"
        hello = self.template(APP + load, {"conf.py": names}).hello()
        self.assertEqual(hello["unknown"], {"task_ack_late": 1})
        names = "CELERYD_CONCURENCY = 3\nCELERYD_PREFETCH_MULTIPLIER = 1\nDEBUG = True\n"
        hello = self.template(APP + "    app.config_from_object('conf')\n", {"conf.py": names}).hello()
        self.assertEqual(hello["unknown"], {"CELERYD_CONCURENCY": 3})

    def test_another_age_of_failures_is_the_backends_own(self):
        source = APP + "    app.conf.result_backend = 'redis://127.0.0.1:1/0'\n"
        self.assertFalse(self.template(source).hello()["backend"]["own"])
        hello = self.template(source + "    app.conf.result_failure_expires = 5\n").hello()
        self.assertTrue(hello["backend"]["own"])


class Retries(unittest.TestCase):
    """Names of settings that Celery ignores (`task_retry_backoff` and the like) do what they say."""

    def run_with(self, settings: str):
        redis = Redis()
        self.addCleanup(redis.stop)
        source = APP.replace("redis://127.0.0.1:1/0", redis.url) + f"    app.conf.update({settings})\n" + TASKS
        folder = Folder({"proj.py": source})
        self.addCleanup(folder.remove)
        template = Template(folder)
        self.addCleanup(template.stop)
        template.hello()
        return redis, template.fork(store=False)

    def countdown(self, redis, child, name: str) -> float:
        """Seconds from a failure to the retry that it sends."""
        import datetime

        before = datetime.datetime.now(datetime.timezone.utc)
        child.run(name)
        self.assertEqual(child.done().meta["state"], "retry")
        ((headers, _, _),) = redis.messages()
        redis.client.delete("celery")
        eta = datetime.datetime.fromisoformat(headers["eta"])
        return (eta - before).total_seconds()

    def test_tasks_without_their_own_have_the_settings(self):
        redis, child = self.run_with(
            "task_default_retry_delay=33, task_retry_backoff=20, task_retry_backoff_max=15, task_retry_jitter=False"
        )
        child.run("proj.delays")
        self.assertIn("[33, 5, 7]", child.done().meta["result"])
        # The bound is the setting's; the second task says the rest itself.
        self.assertAlmostEqual(self.countdown(redis, child, "proj.fails"), 15, delta=3)
        self.assertAlmostEqual(self.countdown(redis, child, "proj.fails_later"), 15, delta=3)

    def test_without_backoff_the_delay_is_the_settings(self):
        redis, child = self.run_with("task_default_retry_delay=33")
        self.assertAlmostEqual(self.countdown(redis, child, "proj.fails"), 33, delta=3)
        self.assertAlmostEqual(self.countdown(redis, child, "proj.fails_later"), 50, delta=3)

    def test_a_value_of_another_kind_is_refused(self):
        source = APP + "    app.conf.task_retry_backoff = 'often'\n"
        folder = Folder({"proj.py": source})
        self.addCleanup(folder.remove)
        template = Template(folder)
        self.addCleanup(template.stop)
        failed = template.failed()
        self.assertEqual(failed["kind"], "app")
        self.assertIn("task_retry_backoff is 'often', not true, false or a number", failed["text"])


if __name__ == "__main__":
    unittest.main()
