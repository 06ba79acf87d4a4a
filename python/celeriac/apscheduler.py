"""Lets APScheduler 3 and a beat of celeriac run the same jobs, each occurrence once.

Before a job runs, celeriac is asked for the occurrence (`POST /api/v1/schedules/NAME/fire`). It says
yes once, and only while the entry of the job's name belongs to this scheduler; so an entry can be given
to beat, and back, while both run. Needs nothing but APScheduler (3.10 and 3.11) and the standard library;
this file may be copied. How to move: docs/guides/apscheduler.md.

    from celeriac.apscheduler import Guard, GuardedThreadPoolExecutor

    guard = Guard("http://127.0.0.1:8555", token=os.environ["CELERIAC_TOKEN"])
    scheduler = BackgroundScheduler(executors={"default": GuardedThreadPoolExecutor(guard)})

It is an executor that asks, for only the executor knows for which time it runs a job: APScheduler 3 tells
neither the job's function nor, before a run, its listeners. It asks where the job is to run, in a thread of
the pool, so that a slow answer holds up nothing else; once for each time that APScheduler itself would run
(`coalesce`, `max_instances`), and not for one that it calls missed (`misfire_grace_time`).
"""

from __future__ import annotations

import asyncio
import json
import logging
import queue
import threading
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from typing import Any, Optional

from apscheduler.executors.asyncio import AsyncIOExecutor, run_coroutine_job
from apscheduler.executors.base import run_job
from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.util import iscoroutinefunction_partial

__all__ = ["Guard", "GuardedAsyncIOExecutor", "GuardedThreadPoolExecutor"]

_logger = logging.getLogger("celeriac.apscheduler")

#: The longest answer that is read, in bytes.
_ANSWER_BYTES_MAX = 64 << 10


class Guard:
    """Asks celeriac whether an occurrence of a job may run here.

    `owner` is the name under which this scheduler owns its entries. With `owner_epoch` it is refused once
    its entry has changed hands, even if that came back to this name: a scheduler that was forgotten
    somewhere stays quiet.

    `when_unreachable` says what happens without an answer within `deadline` seconds, or with one that
    makes no sense: `"run"`, this scheduler goes on alone, or `"skip"`. A job whose entry was last said to
    belong to another one is skipped in any case. A job without an entry of its name is not moved yet, and
    runs.

    `name` makes the entry's name of a job; it is the job's id if nothing is given.
    """

    def __init__(
        self,
        url: str,
        token: Optional[str] = None,
        owner: str = "apscheduler",
        owner_epoch: Optional[int] = None,
        when_unreachable: str = "run",
        deadline: float = 2.0,
        name: Optional[Callable[[Any], str]] = None,
    ) -> None:
        if when_unreachable not in ("run", "skip"):
            raise ValueError(f'when_unreachable is "run" or "skip", not {when_unreachable!r}')
        if urllib.parse.urlsplit(url).scheme not in ("http", "https"):
            raise ValueError(f"url is such as http://127.0.0.1:8555, not {url!r}")
        self._url = url.rstrip("/")
        self._token = token
        self._owner = owner
        self._owner_epoch = owner_epoch
        self._runs_alone = when_unreachable == "run"
        self._deadline = deadline
        self._name = name
        #: Entries that were another one's when they were asked for last.
        self._given_away: set[str] = set()

    def allows(self, job: Any, run_time: datetime) -> bool:
        """Whether a job may run for this time; never longer than the deadline, never an exception."""
        name = self._name(job) if self._name else job.id
        try:
            status, detail = self._ask(name, run_time)
        except (OSError, ValueError, queue.Empty) as error:
            status, detail = 0, f"no answer: {str(error) or type(error).__name__}"
        if status == 410:
            self._given_away.add(name)
        elif status:
            self._given_away.discard(name)
        if status == 201:
            return True
        if status in (409, 410, 423):
            _logger.info("job %s of %s is skipped: %s", name, run_time, detail)
            return False
        if status == 404:
            _logger.info("job %s of %s runs: %s", name, run_time, detail)
            return True
        runs = self._runs_alone and name not in self._given_away
        _logger.warning("job %s of %s %s: %s", name, run_time, "runs" if runs else "is skipped", detail)
        return runs

    def _ask(self, name: str, run_time: datetime) -> tuple[int, str]:
        """The status and the text of the answer. A thread asks: names of hosts have no deadline."""
        answer: queue.SimpleQueue = queue.SimpleQueue()

        def work() -> None:
            try:
                answer.put(self._request(name, run_time))
            except Exception as error:
                answer.put(error)

        threading.Thread(target=work, name="celeriac-guard", daemon=True).start()
        try:
            answered = answer.get(timeout=self._deadline)
        except queue.Empty:
            raise TimeoutError(f"nothing within {self._deadline} s") from None
        if isinstance(answered, Exception):
            raise OSError(str(answered)) from answered
        return answered

    def _request(self, name: str, run_time: datetime) -> tuple[int, str]:
        due = run_time.astimezone(timezone.utc).isoformat()
        body = {"scheduled_for": due, "owner": self._owner}
        if self._owner_epoch is not None:
            body["owner_epoch"] = self._owner_epoch
        headers = {"Content-Type": "application/json"}
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        path = f"/api/v1/schedules/{urllib.parse.quote(name, safe='')}/fire"
        data = json.dumps(body).encode()
        request = urllib.request.Request(self._url + path, data, headers, method="POST")
        try:
            with urllib.request.urlopen(request, timeout=self._deadline) as response:
                status = response.status
                return (status, "") if status == 201 else (0, f"status {status}")
        except urllib.error.HTTPError as refused:
            with refused:
                return _problem(refused.code, refused.read(_ANSWER_BYTES_MAX))


def _problem(status: int, body: bytes) -> tuple[int, str]:
    """What celeriac said; an answer of somebody else between us (a proxy) is none."""
    try:
        problem = json.loads(body)
        kind, detail = str(problem["type"]), str(problem["detail"])
    except (ValueError, KeyError, TypeError):
        kind, detail = "", ""
    if not kind.startswith("urn:celeriac:problem:"):
        return 0, f"status {status}, and not from celeriac"
    # An entry that changes all the time is a conflict as well.
    if status not in (404, 409, 410, 423) or kind.endswith(":conflict"):
        return 0, f"status {status}, {detail}"
    return status, detail


class _Begun:
    """A job that was not late when it began: the time that the answer took does not make it so."""

    misfire_grace_time = None

    def __init__(self, job: Any) -> None:
        self._job = job

    def __getattr__(self, name: str) -> Any:
        return getattr(self._job, name)

    def __str__(self) -> str:
        return str(self._job)


def _is_late(job: Any, run_time: datetime) -> bool:
    """As `run_job` of APScheduler 3 has it, which says so and dispatches the event."""
    grace = job.misfire_grace_time
    return grace is not None and datetime.now(timezone.utc) - run_time > timedelta(seconds=grace)


def _run_guarded(guard: Guard, job: Any, run_times: list, logger_name: str) -> list:
    """`run_job` for each time that is late, or that celeriac gives us."""
    events = []
    for run_time in run_times:
        if _is_late(job, run_time):
            events += run_job(job, job._jobstore_alias, [run_time], logger_name)
        elif guard.allows(job, run_time):
            events += run_job(_Begun(job), job._jobstore_alias, [run_time], logger_name)
    return events


class GuardedThreadPoolExecutor(ThreadPoolExecutor):
    """APScheduler's `ThreadPoolExecutor`, which asks before each run."""

    def __init__(self, guard: Guard, max_workers: int = 10, pool_kwargs: Optional[dict] = None) -> None:
        super().__init__(max_workers, pool_kwargs)
        self._guard = guard

    def _do_submit_job(self, job: Any, run_times: list) -> None:
        def ended(future: Any) -> None:
            error = future.exception()
            if error is None:
                self._run_job_success(job.id, future.result())
            else:
                self._run_job_error(job.id, error, error.__traceback__)

        future = self._pool.submit(_run_guarded, self._guard, job, run_times, self._logger.name)
        future.add_done_callback(ended)


class GuardedAsyncIOExecutor(AsyncIOExecutor):
    """APScheduler's `AsyncIOExecutor`, which asks before each run; in a thread, so that the loop goes on."""

    def __init__(self, guard: Guard) -> None:
        super().__init__()
        self._guard = guard

    def _do_submit_job(self, job: Any, run_times: list) -> None:
        def ended(task: asyncio.Future) -> None:
            self._pending_futures.discard(task)
            try:
                events = task.result()
            except BaseException as error:
                self._run_job_error(job.id, error, error.__traceback__)
            else:
                self._run_job_success(job.id, events)

        if iscoroutinefunction_partial(job.func):
            task = self._eventloop.create_task(self._run_coroutine(job, run_times))
        else:
            task = self._eventloop.run_in_executor(
                None, _run_guarded, self._guard, job, run_times, self._logger.name
            )
        task.add_done_callback(ended)
        self._pending_futures.add(task)

    async def _run_coroutine(self, job: Any, run_times: list) -> list:
        events = []
        for run_time in run_times:
            one = job
            if not _is_late(job, run_time):
                ask = self._eventloop.run_in_executor(None, self._guard.allows, job, run_time)
                if not await ask:
                    continue
                one = _Begun(job)
            events += await run_coroutine_job(one, job._jobstore_alias, [run_time], self._logger.name)
        return events
