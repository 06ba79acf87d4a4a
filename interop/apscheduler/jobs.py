"""A program with an APScheduler 3 whose jobs ask celeriac before they run.

Its plan is JSON on the command line: url, token, kind ("threads" or "asyncio"), and jobs with name, every
(seconds) and start (ISO 8601). It prints `ready`, a line `body NAME` for each run of a job's function, and a
line `ran NAME WHEN` for each run that APScheduler tells of. It ends when its standard input does.
"""

import asyncio
import json
import logging
import sys
import threading
from datetime import datetime, timezone

from apscheduler.events import EVENT_JOB_ERROR, EVENT_JOB_EXECUTED, EVENT_JOB_MAX_INSTANCES, EVENT_JOB_MISSED
from apscheduler.schedulers.asyncio import AsyncIOScheduler
from apscheduler.schedulers.background import BackgroundScheduler

from celeriac.apscheduler import Guard, GuardedAsyncIOExecutor, GuardedThreadPoolExecutor

LOCK = threading.Lock()


def say(*words):
    with LOCK:
        print(*words, flush=True)


def work(name):
    say("body", name)


async def work_on_the_loop(name):
    say("body", name)


def heard(event):
    if event.code == EVENT_JOB_EXECUTED:
        say("ran", event.job_id, event.scheduled_run_time.astimezone(timezone.utc).isoformat())
    else:
        say("fault", event.job_id, event.code)


def begin(scheduler, plan):
    on_loop = plan["kind"] == "asyncio"
    for number, job in enumerate(plan["jobs"]):
        scheduler.add_job(
            work_on_the_loop if on_loop and number % 2 else work,
            "interval",
            seconds=job["every"],
            start_date=datetime.fromisoformat(job["start"]),
            id=job["name"],
            args=[job["name"]],
        )
    faults = EVENT_JOB_ERROR | EVENT_JOB_MISSED | EVENT_JOB_MAX_INSTANCES
    scheduler.add_listener(heard, EVENT_JOB_EXECUTED | faults)
    scheduler.start()
    say("ready")


async def run_on_a_loop(plan, options, guard):
    scheduler = AsyncIOScheduler(executors={"default": GuardedAsyncIOExecutor(guard)}, **options)
    begin(scheduler, plan)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    scheduler.shutdown()


def main():
    plan = json.loads(sys.argv[1])
    logging.basicConfig(level=logging.INFO, stream=sys.stderr)
    guard = Guard(plan["url"], token=plan["token"])
    # A busy machine is late, and misses nothing.
    defaults = {"misfire_grace_time": 60, "coalesce": False, "max_instances": 50}
    options = {"job_defaults": defaults, "timezone": "UTC"}
    if plan["kind"] == "asyncio":
        asyncio.run(run_on_a_loop(plan, options, guard))
        return
    executor = GuardedThreadPoolExecutor(guard, max_workers=20)
    scheduler = BackgroundScheduler(executors={"default": executor}, **options)
    begin(scheduler, plan)
    sys.stdin.read()
    scheduler.shutdown()


if __name__ == "__main__":
    main()
