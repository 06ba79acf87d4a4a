"""What the worker adds to tasks: retries, and returned values that are failures."""

import datetime
import pathlib
import pickle
import sys
import unittest

from harness import Folder, Redis, Template

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from celeriac_child import additions  # noqa: E402

TASKS = """
    from celery import Celery
    app = Celery("proj", broker="URL", backend="URL")

    class Gone(ConnectionResetError):
        pass

    @app.task
    def fails():
        raise Gone("gone")

    @app.task(bind=True, max_retries=None)
    def runs_out(self):
        self.retry(countdown=0, max_retries=0)

    @app.task(autoretry_for=(ValueError,), default_retry_delay=600, max_retries=1)
    def own():
        raise ValueError("own")

    @app.task
    def returns(value):
        return value
"""


def retry(max_retries=3, retry_for=(), retry_except=(), delays=(100, 200)):
    policy = {"max_retries": max_retries, "delay": {"delays": list(delays)}}
    return {"retry": {**policy, "retry_for": list(retry_for), "retry_except": list(retry_except)}}


class Added(unittest.TestCase):
    """A child of a template that was told of tasks."""

    def child(self, **tasks):
        self.redis = Redis()
        self.addCleanup(self.redis.stop)
        folder = Folder({"proj.py": TASKS.replace("URL", self.redis.url)})
        self.addCleanup(folder.remove)
        template = Template(folder)
        self.addCleanup(template.stop)
        self.tasks = template.hello()["tasks"]
        template.send({"op": "tasks", "tasks": {f"proj.{name}": one for name, one in tasks.items()}})
        return template.fork(store=False)

    def ends(self, child, name, *args, retries=0):
        """State and exception, and the seconds to the retry that was sent."""
        before = datetime.datetime.now(datetime.timezone.utc)
        child.run(name, *args, headers={"retries": retries})
        done = child.done()
        sent = [headers for headers, _, _ in self.redis.messages()]
        self.redis.client.delete("celery")
        for headers in sent:
            self.assertEqual(headers["retries"], retries + 1)
        delays = [
            round((datetime.datetime.fromisoformat(headers["eta"]) - before).total_seconds(), -1)
            for headers in sent
        ]
        return done.meta["state"], (done.exception or {}).get("type"), delays

    def test_a_schedule_is_followed_to_its_end(self):
        child = self.child(fails=retry(), missing=retry())
        self.assertEqual(self.ends(child, "proj.fails"), ("retry", "Gone", [100]))
        self.assertEqual(self.ends(child, "proj.fails", retries=2), ("retry", "Gone", [200]))
        self.assertEqual(self.ends(child, "proj.fails", retries=3), ("failure", "Gone", []))

    def test_a_schedule_without_end_has_none(self):
        child = self.child(fails=retry(None))
        self.assertEqual(self.ends(child, "proj.fails", retries=5000), ("retry", "Gone", [200]))

    def test_names_stand_for_what_is_derived_from_them(self):
        child = self.child(fails=retry(retry_for=["OSError"], retry_except=["KeyError"]))
        self.assertEqual(self.ends(child, "proj.fails")[0], "retry")
        for only, but in (["KeyError"], []), (["OSError"], ["proj.*"]), ([], ["Connection*"]):
            child = self.child(fails=retry(retry_for=only, retry_except=but))
            self.assertEqual(self.ends(child, "proj.fails")[0], "failure", (only, but))

    def test_own_retries_are_overruled_and_their_end_is_an_end(self):
        child = self.child(own=retry(), runs_out=retry())
        self.assertTrue(self.tasks["proj.own"]["autoretry"])
        self.assertFalse(self.tasks["proj.fails"]["autoretry"])
        self.assertEqual(self.ends(child, "proj.own", retries=2), ("retry", "ValueError", [200]))
        self.assertEqual(self.ends(child, "proj.runs_out"), ("failure", "MaxRetriesExceededError", []))

    def test_a_returned_failure_is_one_and_can_be_retried(self):
        rules = {"failure_if": [[["status"], ["error"]]]}
        child = self.child(returns=rules)
        self.assertEqual(self.ends(child, "proj.returns", {"status": "ok"})[0], "success")
        failed = ("failure", "TaskReturnedError", [])
        self.assertEqual(self.ends(child, "proj.returns", {"status": "error"}), failed)
        child = self.child(returns={**rules, **retry(retry_for=["celeriac.exceptions.*"])})
        again = ("retry", "TaskReturnedError", [100])
        self.assertEqual(self.ends(child, "proj.returns", {"status": "error"}), again)


class Rules(unittest.TestCase):
    def test_a_value_is_judged_as_the_worker_would(self):
        failure = {"failure_if": [[["meta", "code"], [5, True]]]}
        success = {"success_if": [[["state"], ["done"]]]}
        for value, rules, expected in (
            ({"meta": {"code": 5}}, failure, True),
            ({"meta": {"code": True}}, failure, True),
            ({"meta": {"code": 1}}, failure, False),
            ({"meta": 5}, failure, False),
            ([5], failure, False),
            ({"state": "done"}, success, False),
            ({"state": "half"}, success, True),
            (None, success, True),
            ({"state": "done", "meta": {"code": 5}}, {**failure, **success}, True),
        ):
            self.assertEqual(additions.is_failure(value, rules), expected, (value, rules))

    def test_whoever_unpickles_a_returned_failure_needs_celery_only(self):
        from celery.exceptions import TaskError

        error = pickle.loads(pickle.dumps(additions.TaskReturnedError("no rows")))
        self.assertEqual((type(error), error.args), (TaskError, ("no rows",)))

    def test_delays_are_those_of_the_worker(self):
        backoff = {"first": 2, "max": 60, "jitter": False}
        self.assertEqual([additions.delay(backoff, n) for n in (0, 1, 4, 5, 9999)], [2, 4, 32, 60, 60])
        drawn = {additions.delay({**backoff, "jitter": True}, 1) for _ in range(1000)}
        self.assertEqual(drawn, {0, 1, 2, 3, 4})
        delays = {"delays": [0.5, 7]}
        self.assertEqual([additions.delay(delays, n) for n in (0, 1, 2)], [0.5, 7, 7])


if __name__ == "__main__":
    unittest.main()
