"""What a guarded APScheduler 3 does with each answer, and without one.

Run with a Python that has APScheduler and not Celery: `python -m unittest discover -s python/apscheduler_tests`.
"""

from __future__ import annotations

import asyncio
import http.server
import json
import pathlib
import queue
import socket
import sys
import threading
import time
import unittest
from datetime import datetime, timedelta, timezone

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from apscheduler.events import EVENT_ALL, EVENT_JOB_EXECUTED, EVENT_JOB_MISSED, EVENT_JOB_SUBMITTED  # noqa: E402
from apscheduler.schedulers.asyncio import AsyncIOScheduler  # noqa: E402
from apscheduler.schedulers.background import BackgroundScheduler  # noqa: E402

from celeriac.apscheduler import Guard, GuardedAsyncIOExecutor, GuardedThreadPoolExecutor  # noqa: E402

PATIENCE = 20


def now() -> datetime:
    return datetime.now(timezone.utc)


def problem(kind: str, detail: str = "because") -> bytes:
    return json.dumps({"type": f"urn:celeriac:problem:{kind}", "detail": detail}).encode()


class Celeriac:
    """A server that answers each question as it is told, and keeps what it was asked."""

    def __init__(self, test: unittest.TestCase, *answers: tuple[int, bytes]) -> None:
        given, self.asked = list(answers), queue.Queue()
        asked = self.asked

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):  # noqa: N802
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                asked.put((self.path, self.headers.get("Authorization"), body))
                status, text = given.pop(0) if len(given) > 1 else given[0]
                self.send_response(status)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            def log_message(self, *_):
                pass

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        test.addCleanup(server.server_close)
        test.addCleanup(server.shutdown)
        self.url = f"http://127.0.0.1:{server.server_port}"


class Job:
    """What a guard sees of a job."""

    id = "reports/night ü"


class GuardTest(unittest.TestCase):
    def answers(self, status: int, body: bytes = b"{}", **options) -> bool:
        guard = Guard(Celeriac(self, (status, body)).url, **options)
        with self.assertLogs("celeriac.apscheduler", "INFO") if status != 201 else self.subTest():
            return guard.allows(Job(), now())

    def test_it_asks_for_the_occurrence_of_its_entry(self):
        celeriac = Celeriac(self, (201, b"{}"))
        due = datetime(2026, 3, 1, 2, 30, 0, 123456, timezone(timedelta(hours=1)))
        guard = Guard(celeriac.url + "/", token="cel_1", owner="legacy", owner_epoch=4)
        self.assertTrue(guard.allows(Job(), due))
        path, token, body = celeriac.asked.get(timeout=PATIENCE)
        self.assertEqual(path, "/api/v1/schedules/reports%2Fnight%20%C3%BC/fire")
        self.assertEqual(token, "Bearer cel_1")
        wanted = {"scheduled_for": "2026-03-01T01:30:00.123456+00:00", "owner": "legacy", "owner_epoch": 4}
        self.assertEqual(body, wanted)

    def test_only_a_yes_and_an_unknown_entry_run(self):
        for status, body, runs in [
            (201, b"{}", True),
            (409, problem("already-run"), False),
            (410, problem("not-owner"), False),
            (423, problem("paused"), False),
            (404, problem("not-found"), True),
        ]:
            for rule in ("run", "skip"):
                self.assertEqual(self.answers(status, body, when_unreachable=rule), runs, (status, rule))

    def test_what_is_no_answer_of_celeriac_goes_by_the_rule(self):
        for status, body in [
            (500, problem("internal")),
            (401, problem("unauthorized")),
            (409, problem("conflict")),
            (410, b"<html>gone</html>"),
            (404, b"[]"),
            (200, b"{}"),
        ]:
            self.assertTrue(self.answers(status, body), (status, body))
            self.assertFalse(self.answers(status, body, when_unreachable="skip"), (status, body))

    def test_nobody_there_and_nobody_answering_go_by_the_rule_within_the_deadline(self):
        with socket.create_server(("127.0.0.1", 0)) as silent:
            port = silent.getsockname()[1]
            for rule, runs in (("run", True), ("skip", False)):
                guard = Guard(f"http://127.0.0.1:{port}", when_unreachable=rule, deadline=0.3)
                began = time.monotonic()
                with self.assertLogs("celeriac.apscheduler", "WARNING"):
                    self.assertEqual(guard.allows(Job(), now()), runs)
                self.assertLess(time.monotonic() - began, 2)
        guard = Guard(f"http://127.0.0.1:{port}", when_unreachable="skip")
        with self.assertLogs("celeriac.apscheduler", "WARNING"):
            self.assertFalse(guard.allows(Job(), now()))

    def test_what_was_given_away_is_not_run_because_nobody_answers(self):
        gone, broken = (410, problem("not-owner")), (503, problem("unavailable"))
        guard = Guard(Celeriac(self, gone, broken, (201, b"{}"), broken).url)
        with self.assertLogs("celeriac.apscheduler", "INFO"):
            allowed = [guard.allows(Job(), now()) for _ in range(4)]
        self.assertEqual(allowed, [False, False, True, True])

    def test_what_makes_no_sense_is_refused_at_once(self):
        for url, options in [("127.0.0.1:8555", {}), ("http://x", {"when_unreachable": "wait"})]:
            with self.assertRaises(ValueError):
                Guard(url, **options)


class ExecutorTest(unittest.TestCase):
    """Each scene with threads and on a loop, with functions and with coroutines."""

    def scene(self, guard: Guard, due: datetime, events: int, **job) -> tuple[list, int]:
        """The events of one job, apart from its submission, and how often its body ran; the same each time."""
        seen = [self.in_threads(guard, due, events, job)]
        seen.append(asyncio.run(self.on_a_loop(guard, due, events, job, coroutine=False)))
        seen.append(asyncio.run(self.on_a_loop(guard, due, events, job, coroutine=True)))
        self.assertTrue(all(one == seen[0] for one in seen), seen)
        return seen[0]

    @staticmethod
    def add(scheduler, function, due, job):
        heard = queue.Queue()
        scheduler.add_listener(heard.put, EVENT_ALL & ~EVENT_JOB_SUBMITTED)
        scheduler.start(paused=True)
        scheduler.add_job(function, "interval", hours=1, start_date=due, id="job", next_run_time=due, **job)
        while not heard.empty():
            heard.get()
        return heard

    def in_threads(self, guard, due, events, job):
        ran = []
        scheduler = BackgroundScheduler(executors={"default": GuardedThreadPoolExecutor(guard)})
        heard = self.add(scheduler, lambda: ran.append(1), due, job)
        scheduler.resume()
        codes = [self.code(heard.get(timeout=PATIENCE)) for _ in range(events + 1)][1:]
        scheduler.shutdown()
        return codes, len(ran)

    async def on_a_loop(self, guard, due, events, job, coroutine):
        ran = []

        async def body():
            ran.append(1)

        function = body if coroutine else (lambda: ran.append(1))
        scheduler = AsyncIOScheduler(executors={"default": GuardedAsyncIOExecutor(guard)})
        heard = self.add(scheduler, function, due, job)
        scheduler.resume()
        loop = asyncio.get_running_loop()
        get = lambda: self.code(heard.get(timeout=PATIENCE))  # noqa: E731
        codes = [await loop.run_in_executor(None, get) for _ in range(events + 1)][1:]
        scheduler.shutdown()
        return codes, len(ran)

    @staticmethod
    def code(event):
        return event.code

    def test_what_is_given_runs(self):
        guard = Guard(Celeriac(self, (201, b"{}")).url)
        self.assertEqual(self.scene(guard, now(), 1), ([EVENT_JOB_EXECUTED], 1))

    def test_each_of_several_times_is_asked_for(self):
        celeriac = Celeriac(self, (201, b"{}"), (410, problem("not-owner")), (201, b"{}"), (201, b"{}"))
        guard = Guard(celeriac.url)
        due = now() - timedelta(hours=2, minutes=1)
        job = {"coalesce": False, "misfire_grace_time": None}
        self.assertEqual(self.in_threads(guard, due, 2, job), ([EVENT_JOB_EXECUTED] * 2, 2))
        hours = [celeriac.asked.get(timeout=PATIENCE)[2]["scheduled_for"] for _ in range(3)]
        wanted = [(due + timedelta(hours=hour)).isoformat() for hour in range(3)]
        self.assertEqual(hours, wanted)

    def test_what_is_coalesced_is_asked_for_once_and_what_is_missed_never(self):
        celeriac = Celeriac(self, (201, b"{}"))
        guard = Guard(celeriac.url)
        due = now() - timedelta(hours=2, minutes=1)
        late = {"coalesce": True, "misfire_grace_time": None}
        self.assertEqual(self.in_threads(guard, due, 1, late), ([EVENT_JOB_EXECUTED], 1))
        self.assertEqual(celeriac.asked.qsize(), 1)
        missed = {"coalesce": True, "misfire_grace_time": 1}
        self.assertEqual(self.scene(guard, due, 1, **missed), ([EVENT_JOB_MISSED], 0))
        self.assertEqual(celeriac.asked.qsize(), 1)

    def test_a_job_is_not_missed_because_nobody_answered(self):
        with socket.create_server(("127.0.0.1", 0)) as silent, self.assertLogs("celeriac.apscheduler"):
            guard = Guard(f"http://127.0.0.1:{silent.getsockname()[1]}", deadline=1.2)
            job = {"misfire_grace_time": 1}
            seen = [self.in_threads(guard, now(), 1, job)]
            seen.append(asyncio.run(self.on_a_loop(guard, now(), 1, job, coroutine=True)))
        self.assertEqual(seen, [([EVENT_JOB_EXECUTED], 1)] * 2)

    def test_what_is_not_given_leaves_no_instance_behind(self):
        asked = Celeriac(self, (410, problem("not-owner")))
        executor = GuardedThreadPoolExecutor(Guard(asked.url))
        scheduler = BackgroundScheduler(executors={"default": executor})
        self.add(scheduler, self.fail, now(), {"max_instances": 1})
        with self.assertLogs("celeriac.apscheduler", "INFO") as logged:
            scheduler.resume()
            asked.asked.get(timeout=PATIENCE)
            scheduler.shutdown()
        self.assertIn("is skipped: because", logged.output[0])
        self.assertEqual(executor._instances, {})


if __name__ == "__main__":
    unittest.main()
