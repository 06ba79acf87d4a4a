"""The scenes of S3: the guide's calls, its benefits (retries, dead letters, levels), its tests."""

import asyncio
import os
import pathlib
import subprocess
import sys

os.environ.setdefault("RETRY_SCHEDULE", "0.2,0.4,0.6")  # 60,300,900 s in the seed

import scene_kit as kit
from consultantos import world
from consultantos.jobs.celery_app import celery_app
from consultantos.jobs.monitoring_worker import MonitoringWorker
from consultantos.jobs.tasks import (
    check_monitor_task, cleanup_task, run_analysis_task, send_alert_task)
from consultantos.jobs.worker import AnalysisWorker
from scene_kit import document, end, outcome, say, scene, show, until

COMMAND = ("--loglevel=info", "--concurrency=2")
REQUEST = {"company": "Acme", "frameworks": ["swot", "porter", "pestel"]}


def monitor(monitor_id, value):
    path = world.DATA / "monitors" / monitor_id
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(str(value))
    return monitor_id


def checks():
    log = world.DATA / "checks"
    return log.read_text().splitlines() if log.exists() else []


@scene("test task")
def step_7():
    result = check_monitor_task.apply_async(args=[monitor("monitor_123", 5)], priority=5, queue="normal")
    outcome("over", result)
    document("document", result)
    again = check_monitor_task.AsyncResult(result.id)
    say("asked again", again.status, again.result)
    say("unknown", check_monitor_task.AsyncResult("task_id").status)


@scene("started")
def a_started_task_is_seen():
    monitor("slow", 5)
    with kit.gate("hold-slow") as open_gate:
        result = check_monitor_task.apply_async(args=["slow"], priority=5, queue="normal")
        until("state STARTED", lambda: result.state == "STARTED")
        say("info", sorted(result.info), result.info["hostname"])
        (task,) = [task for tasks in kit.inspect(celery_app).active().values() for task in tasks]
        say("pid is that of the child", task["worker_pid"] == result.info["pid"])
        open_gate()
    outcome("over", result)


@scene("alert")
def an_alert_is_sent_and_escalated():
    before = len(world.mails())
    result = check_monitor_task.apply_async(args=[monitor("hot", 250)], priority=5, queue="normal")
    found = result.get(timeout=30)
    escalated = celery_app.AsyncResult(found["alert_task_id"])
    outcome("escalated", escalated)
    document("document", escalated)
    say("mails", world.mails()[before:])


@scene("chain by hand")
def a_chain_of_two_queues():
    before = len(world.mails())
    from consultantos.jobs.tasks import escalate_task

    result = (send_alert_task.s("cold", 3) | escalate_task.s()).apply_async()
    outcome("over", result)
    outcome("its parent", result.parent)
    say("mails", world.mails()[before:])


@scene("analysis")
def an_analysis_is_replaced_by_a_chord():
    result = run_analysis_task.apply_async(args=[REQUEST, "user_9"], priority=5, queue="normal")
    outcome("over", result)
    document("document", result)
    old = AnalysisWorker({"job_1": REQUEST})
    say("as the old worker", asyncio.run(old.process_job("job_1"))["total"] == result.get()["total"])


@scene("bad analysis")
def an_analysis_that_fails():
    before = dead_letters()
    result = run_analysis_task.apply_async(args=[{}, "user_9"], priority=5, queue="normal")
    outcome("over", result)
    document("document", result)
    until("a dead letter", lambda: dead_letters() == before + 1)


def dead_letters():
    with celery_app.connection_for_read() as connection:
        return connection.default_channel.client.llen("dead_letter")


@scene("retry schedule")
def retried_by_the_schedule():
    monitor("shaky", 5)
    kit.fault("down-shaky", 2)
    result = check_monitor_task.apply_async(args=["shaky"], priority=5, queue="normal")
    outcome("over", result)
    document("document", result)
    lines = until("two retries", lambda: (found := kit.logs(f"[{result.id}] retry: Retry in"))[1:] and found)
    say("  waits", [line.split("retry: ", 1)[1] for line in lines])


@scene("dead letter")
def retried_to_the_end():
    before = dead_letters()
    monitor("gone", 5)
    kit.fault("down-gone", 4)
    result = check_monitor_task.apply_async(args=["gone"], priority=5, queue="normal")
    outcome("over", result)
    document("document", result)
    until("a dead letter", lambda: dead_letters() == before + 1)
    with celery_app.connection_for_read() as connection:
        queue = connection.SimpleQueue("dead_letter")
        letters = [queue.get(timeout=5) for _ in range(before + 1)]
        say("dead letter", letters[-1].payload[0])
        for letter in letters:
            letter.requeue()
        queue.close()


@scene("monitoring worker")
def both_modes():
    names = [monitor(f"m{number}", number) for number in range(5)]
    results = asyncio.run(MonitoringWorker(use_celery=True, check_interval=60).check_due(names))
    queued = [result.get(timeout=30) for result in results]
    direct = asyncio.run(
        MonitoringWorker(intelligence_monitor=world.check, use_celery=False).check_due(names))
    say("queued", queued)
    say("as in direct execution", queued == direct)


@scene("inspect", whole_fleet=True)
def step_4():
    inspect = kit.inspect(celery_app)
    say("ping", sorted({show(answer) for answer in inspect.ping().values()}))
    (names,) = {show(names) for names in inspect.registered().values()}
    say("registered", names)
    (queues,) = {show(queues) for queues in inspect.active_queues().values()}
    say("active_queues", queues)
    for command in ("active", "reserved", "scheduled", "revoked"):
        say(command, sorted({show(answer) for answer in getattr(inspect, command)().values()}))
    say("stats", sorted({show(sorted(answer)) for answer in inspect.stats().values()}))


@scene("inspect by command", whole_fleet=True)
def step_4_by_the_command_line():
    for what in ("ping", "registered", "active_queues", "active"):
        done = subprocess.run(
            [sys.executable, "-m", "celery", "-A", "consultantos.jobs.celery_app", "inspect", what],
            capture_output=True, text=True, check=False)
        lines = sorted({kit.plain(line.strip()) for line in done.stdout.splitlines()
                        if " online." not in line})
        say(what, done.returncode, lines)


@scene("rate limit")
def the_rate_limit_is_changed():
    answers = celery_app.control.rate_limit(
        check_monitor_task.name, "5/s", reply=True, timeout=10, limit=len(kit.MODES[kit.MODE]))
    say("answers", sorted({show(answer) for reply in answers for answer in reply.values()}))
    monitor("limited", 1)
    results = [check_monitor_task.apply_async(args=["limited"], queue="normal") for _ in range(5)]
    say("all are done", [end(result) for result in results])
    celery_app.control.rate_limit(check_monitor_task.name, "20/s", reply=True, timeout=10,
                                  limit=len(kit.MODES[kit.MODE]))


@scene("cleanup")
def maintenance_without_a_result():
    world.send_mail("nobody", "x")
    result = cleanup_task.delay()
    until("no mails", lambda: not world.mails())
    until("its log line", lambda: kit.logs(f"Task {cleanup_task.name}[{result.id}] succeeded"))
    say("state", result.state)


@scene("tests of the seed")
def the_seeds_tests():
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "tests/test_celery_tasks.py", "-v", "-p", "no:cacheprovider"],
        capture_output=True, text=True, check=False)
    say("code", done.returncode)
    for line in done.stdout.splitlines():
        if "::" in line:
            say(line.split("[")[0].strip())


@scene("levels", own_workers=True)
def critical_work_is_not_behind_low_work():
    low = [check_monitor_task.apply_async(args=[monitor(f"low{n}", 1)], queue="low") for n in range(24)]
    critical = [check_monitor_task.apply_async(args=[monitor(f"critical{n}", 1)], queue="critical")
                for n in range(6)]
    kinds = kit.MODES[kit.MODE][-1:]
    with kit.workers("consultantos.jobs.celery_app", "-l", "info", "-c", "1", kinds=kinds):
        say("all are done", {end(result) for result in low + critical} == {"SUCCESS"})
    ran = [name for name in checks() if name.startswith(("low", "critical"))]
    last = max(place for place, name in enumerate(ran) if name.startswith("critical"))
    say("the last critical one was among the first sixteen", last < 16)


@scene("scripts", own_workers=True)
def the_seeds_scripts():
    kind = kit.MODES[kit.MODE][-1]
    worker = kit.Worker("consultantos.jobs.celery_app", kind, 1)
    head, tail = worker.argv[:worker.argv.index("-A")], worker.argv[worker.argv.index("worker") + 1:]
    if kind == "celeriac":
        head += ["--python", sys.executable]
    wrapper = pathlib.Path(os.environ["SEED_WORK"]) / "program"
    wrapper.write_text("#!/bin/sh\nexec " + " ".join(head) + ' "$@"\n')
    wrapper.chmod(0o755)
    worker.argv = ["scripts/start_celery_worker.sh", *tail]
    worker.start(CELERY=str(wrapper))
    worker.wait_ready()
    outcome("a check", check_monitor_task.apply_async(args=[monitor("scripted", 1)], queue="normal"))
    say("code", worker.stop())


@scene("worker killed", own_workers=True,
       on_purpose="a dead worker's tasks are back within ten seconds")
def a_worker_dies_and_another_takes_over():
    kinds = kit.MODES[kit.MODE]
    monitor("slow", 5)
    first = kit.Worker("consultantos.jobs.celery_app", kinds[-1], 1, "-l", "info", "-c", "1").start()
    first.wait_ready()
    with kit.gate("hold-slow"):
        result = check_monitor_task.apply_async(args=["slow"], priority=5, queue="normal")
        until("state STARTED", lambda: result.state == "STARTED")
        first.kill()
    with kit.workers("consultantos.jobs.celery_app", "-l", "info", "-c", "1", kinds=kinds[-1:]):
        if kinds[-1] == "stock":
            say("stays in unacked for an hour (visibility_timeout); nothing to wait for")
        else:
            outcome("over", result, 40)


if __name__ == "__main__":
    kit.main("consultantos.jobs.celery_app", *COMMAND, leave=("high", "low"))
