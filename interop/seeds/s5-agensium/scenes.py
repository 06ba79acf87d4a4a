"""The scenes of S5: the setup guide's own steps, and what its tasks do when things go wrong."""

import collections
import json
import os
import uuid
from datetime import datetime, timedelta, timezone

import scene_kit as kit
from celery_app import app, debug_task
from db import models
from db.database import Base, SessionLocal, engine
from agq import cleanup_expired_tasks, health_check, process_analysis
from scene_kit import document, end, outcome, say, scene, show, until
from services.s3_service import s3_service

COMMAND = ("--loglevel=info", "--concurrency=2")
PEOPLE = "name,email\nAda, ADA@x.org\nAda,ada@x.org\nBob,\n"


def make_task(tool_id, user_id=1, status="QUEUED", minutes_old=0, text=PEOPLE):
    task_id = str(uuid.uuid4())
    created_at = datetime.now(timezone.utc) - timedelta(minutes=minutes_old)
    s3_service.put(1, task_id, "input.csv", text)
    with SessionLocal() as db:
        db.add(models.Task(task_id=task_id, user_id=user_id, tool_id=tool_id, status=status,
                           created_at=created_at))
        db.commit()
    return task_id


def row(task_id):
    with SessionLocal() as db:
        task = db.get(models.Task, task_id)
        return {
            "status": task.status, "progress": task.progress, "error_code": task.error_code,
            "error_message": task.error_message, "s3_cleaned": task.s3_cleaned,
            "times": [name for name in ("processing_started_at", "completed_at", "failed_at", "expired_at")
                      if getattr(task, name)],
        }


def ttl(result):
    return app.backend.client.ttl(app.backend.get_key_for_task(result.id))


def without_time(result):
    value = dict(result.result)
    value["execution_time_ms"] = type(value["execution_time_ms"]).__name__
    return value


@scene("banner", whole_fleet=True)
def banner():
    for line in kit.first_log().splitlines():
        if any(mark in line for mark in (".> ", "[queues]", "[tasks]", "  . ", "Connected to", "ready.")):
            say(line.strip())


@scene("debug_task")
def test_2_of_the_guide():
    result = debug_task.delay()
    say("result", result.get(timeout=10))
    document("document", result)
    until("the printed request", lambda: kit.logs("Request: <Context:"))
    (line,) = kit.logs("Request: <Context:")
    say(line.split("<Context:")[0])
    request = eval(line.split("<Context:", 1)[1].strip().rstrip(">"))  # noqa: S307 what repr wrote
    for key in ("hostname", "delivery_info", "reply_to", "timelimit", "origin", "correlation_id"):
        say(f"  {key} =", "<set>" if key in ("reply_to", "origin") and request[key] else request[key])
    say("  members", sorted(request))


@scene("tools")
def each_tool():
    for tool_id in ("profile-my-data", "clean-my-data", "master-my-data"):
        task_id = make_task(tool_id)
        result = process_analysis.delay(task_id, 1)
        say(tool_id, end(result), without_time(result), row(task_id))
        say("  report", json.loads(s3_service.get(1, task_id, "report.json")))
    task_id = make_task("profile-my-data")
    result = process_analysis.delay(task_id, 1, tool_id="clean-my-data")
    say("given tool", end(result), without_time(result), row(task_id))


@scene("errors")
def every_error_code():
    task_id = make_task("bake-my-data")
    result = process_analysis.delay(task_id, 1)
    say("unknown tool", end(result), without_time(result), row(task_id))
    task_id = make_task("profile-my-data", user_id=2)
    outcome("unknown user", process_analysis.delay(task_id, 2))
    say(" ", row(task_id))
    outcome("unknown task", process_analysis.delay("no-such-task", 1))
    task_id = make_task("profile-my-data", text="")
    result = process_analysis.delay(task_id, 1)
    say("empty file", end(result), without_time(result), row(task_id))
    kit.fault("transformer")
    task_id = make_task("profile-my-data")
    result = process_analysis.delay(task_id, 1)  # T-14: swallowed, so it is not retried
    say("lost connection in the tool", end(result), without_time(result), row(task_id))
    result = app.send_task("queue.tasks.process_analysis", args=[1, 2, 3, 4])
    outcome("too many arguments", result)
    document("  document", result)


@scene("states")
def states_while_it_runs():
    task_id = make_task("profile-my-data")
    with kit.gate("hold-" + task_id) as open_gate:
        result = process_analysis.delay(task_id, 1)
        until("state PROCESSING", lambda: result.state == "PROCESSING")
        say("running", result.state, result.info)
        document("  document", result)
        say("  row", row(task_id))
        open_gate()
    say("over", end(result), without_time(result))
    document("  document", result, hide=("traceback", "result"))
    say("  expires in a day", 86000 < ttl(result) <= 86400)


@scene("retries")
def a_database_that_comes_back():
    kit.fault("database-reset", 2)
    task_id = make_task("profile-my-data")
    with kit.Events(app) as events:
        result = process_analysis.delay(task_id, 1)
        events.wait_for("task-retried", result.id)
        say("over", end(result, 60), without_time(result), row(task_id))
        events.wait_for("task-succeeded", result.id)
        counts = collections.Counter(event["type"] for event in events.of(result.id))
        say("  events", counts)
        retried = [event for event in events.of(result.id) if event["type"] == "task-retried"]
        say("  exceptions", [event["exception"] for event in retried])
    document("  document", result, hide=("traceback", "result"))
    lines = kit.logs(f"Task queue.tasks.process_analysis[{result.id}] retry: Retry in")
    say("  logged", len(lines), lines[0].split("] ", 1)[1].split("Retry in")[0])


@scene("retries end")
def a_database_that_stays_away():
    kit.fault("database-reset", 4)
    task_id = make_task("profile-my-data")
    result = process_analysis.delay(task_id, 1)
    outcome("over", result, 60)
    say(" ", row(task_id))
    document("  document", result)
    until("the error in a log", lambda: kit.logs(f"[{result.id}] raised unexpected"))
    say("  logged", [line.split("] ", 1)[1] for line in kit.logs(f"[{result.id}] raised unexpected")])


@scene("soft limit")
def over_the_soft_limit():
    task_id = make_task("profile-my-data")
    with kit.gate("hold-" + task_id):
        result = process_analysis.apply_async(args=[task_id, 1], soft_time_limit=1)
        say("over", end(result), without_time(result), row(task_id))
    until("the warning", lambda: kit.logs("Soft time limit (1s) exceeded"))
    say("  logged", kit.logs("Soft time limit (1s) exceeded")[0].split("] ", 1)[1])


@scene("hard limit")
def over_the_hard_limit():
    task_id = make_task("profile-my-data")
    with kit.gate("deaf-" + task_id):
        result = process_analysis.apply_async(args=[task_id, 1], time_limit=2, soft_time_limit=1)
        outcome("over", result, 10)
        document("  document", result)
    say("  row is left", row(task_id)["status"])


@scene("child killed")
def a_child_is_killed_once():
    task_id = make_task("profile-my-data")
    with kit.gate("hold-" + task_id) as open_gate:
        result = process_analysis.delay(task_id, 1)
        until("state PROCESSING", lambda: result.state == "PROCESSING")
        os.kill(running_pid(result.id), 9)
        until("it runs again", lambda: len(kit.logs(f"Starting task {task_id}")) == 2)
        open_gate()
        say("over", end(result, 60), without_time(result))
        say("  redelivered and done", row(task_id)["status"])


def running_pid(task_id):
    """The process that runs a task, as the worker tells."""

    def find():
        for tasks in kit.inspect(app).active().values():
            for task in tasks:
                if task["id"] == task_id:
                    return task["worker_pid"]
        return None

    return until("an active task", find)


@scene("queues")
def the_three_queues():
    for queue in ("default", "high_priority", "low_priority"):
        task_id = make_task("profile-my-data")
        result = process_analysis.apply_async(args=[task_id, 1], queue=queue)
        say(queue, end(result), row(task_id)["status"])
        document("  document", result, hide=("traceback", "result", "args"))


@scene("events")
def events_of_a_task():
    task_id = make_task("profile-my-data")
    with kit.Events(app) as events:
        result = process_analysis.delay(task_id, 1)
        events.wait_for("task-succeeded", result.id)
        for event in events.of(result.id):
            say(event["type"], sorted(event))


@scene("heartbeat")
def heartbeat():
    with kit.Events(app) as events:
        def beats(asked):
            return [event for event in list(events.seen)
                    if event["type"] == "worker-heartbeat" and (event["freq"] == 5) == asked]

        def answers():
            app.control.broadcast("heartbeat")
            return beats(asked=True)

        say("asked for", sorted(until("an answer to `heartbeat`", answers)[0]))
        say("by itself", sorted(until("a heartbeat", lambda: beats(asked=False))[0]))


@scene("maintenance")
def maintenance():
    stale = make_task("profile-my-data", status="UPLOADING", minutes_old=16)
    fresh = make_task("profile-my-data", status="CREATED", minutes_old=1)
    result = cleanup_expired_tasks.delay()
    until("the row is expired", lambda: row(stale)["status"] == "EXPIRED")
    say("stale", row(stale), "fresh", row(fresh)["status"])
    say("  a result is not kept", result.state)
    kit.fault("s3-delete")
    stale = make_task("profile-my-data", status="CREATED", minutes_old=16)
    cleanup_expired_tasks.delay()
    until("the row is expired", lambda: row(stale)["status"] == "EXPIRED")
    say("S3 refuses", row(stale))
    for wrong in ((), ("database-down",), ("s3-down",)):
        for name in wrong:
            kit.fault(name)
        result = health_check.delay()
        text = f"health_check[{result.id}] succeeded"
        (line,) = until(text, lambda text=text: kit.logs(text))
        say("health", *wrong, line.split("succeeded in", 1)[1].split("{", 1)[1])


@scene("inspect", whole_fleet=True)
def inspect_commands():
    task_id = make_task("profile-my-data")
    with kit.gate("hold-" + task_id) as open_gate:
        result = process_analysis.delay(task_id, 1)
        until("state PROCESSING", lambda: result.state == "PROCESSING")
        inspect = kit.inspect(app)
        (registered,) = {tuple(names) for names in inspect.registered().values()}
        say("registered", registered)
        active = [task for tasks in inspect.active().values() for task in tasks]
        say("active", {key: value for key, value in active[0].items()
                       if key not in ("time_start", "worker_pid")})
        say("  members", sorted(active[0]))
        say("reserved", [tasks for tasks in inspect.reserved().values() if tasks])
        (queues,) = {show(queues) for queues in inspect.active_queues().values()}
        say("queues", queues)
        open_gate()
    end(result)


@scene("countdown")
def countdown():
    task_id = make_task("profile-my-data")
    result = process_analysis.apply_async(args=[task_id, 1], countdown=1.5)
    say("later", end(result), row(task_id)["status"])


@scene("expired")
def expired():
    task_id = make_task("profile-my-data")
    result = process_analysis.apply_async(
        args=[task_id, 1], expires=datetime.now(timezone.utc) - timedelta(seconds=5))
    outcome("expired", result, 8)
    document("  document", result)


@scene("unregistered", on_purpose="its message waits for a worker that has it (decision 0011)")
def a_task_that_nobody_has():
    result = app.send_task("queue.tasks.no_such_task", args=[1])
    until("a log line",
          lambda: kit.logs("Received unregistered task") or kit.logs("no task of this name"))
    say(result.state)


@scene("logs")
def the_formats_of_the_logs():
    task_id = make_task("profile-my-data")
    result = process_analysis.delay(task_id, 1)
    end(result)
    for text in (f"[{result.id}] received", f"Starting task {task_id}", f"[{result.id}] succeeded"):
        until(text, lambda text=text: kit.logs(text))
        say([line.split("{")[0] for line in kit.logs(text)])
    say("the app's own lines", [len(kit.logs("Celery " + text)) == len(kit.MODES[kit.MODE])
                                for text in ("periodic tasks configured", "queues finalized")])


@scene("content")
def content_that_is_not_accepted():
    result = process_analysis.apply_async(args=["x", 1], serializer="pickle")
    until("a log line about it", lambda: kit.logs("Refusing to deserialize") or kit.logs("not accepted"))
    outcome("the next task", debug_task.delay())
    say("state", result.state)


@scene("recycling", own_workers=True)
def a_child_ends_after_fifty_tasks():
    command = ("-l", "info", "--concurrency=1")
    with kit.workers("celery_app", *command, kinds=kit.MODES[kit.MODE][-1:]):
        results = [debug_task.delay() for _ in range(60)]
        say({end(result) for result in results} == {"SUCCESS"})
        until("sixty lines", lambda: sum(bool(kit.logs(f"[{r.id}] succeeded")) for r in results) == 60)
        children = collections.Counter(
            kit.logs(f"[{r.id}] succeeded")[0].split("INFO/")[1].split("]")[0] for r in results)
        say("tasks of each child", list(children.values()))


@scene("poison", own_workers=True,
       on_purpose="the third death of its child makes it a dead letter")
def a_task_that_kills_its_children():
    with kit.workers("celery_app", *COMMAND, kinds=kit.MODES[kit.MODE][-1:]):
        task_id = make_task("profile-my-data")
        with kit.gate("hold-" + task_id) as open_gate:
            result = process_analysis.delay(task_id, 1)
            for death in (1, 2, 3):
                until("it runs", lambda n=death: len(kit.logs(f"Starting task {task_id}")) == n)
                os.kill(running_pid(result.id), 9)
            until("it runs again, or is over",
                  lambda: len(kit.logs(f"Starting task {task_id}")) == 4
                  or kit.logs("its message is a dead letter"))
            if len(kit.logs(f"Starting task {task_id}")) == 4:
                open_gate()
                outcome("T-41: it runs again and again, until it survives:", debug_task.delay())
                say(end(result))
            else:
                say("set aside")


@scene("stopped", own_workers=True)
def a_worker_finishes_what_runs():
    kind = kit.MODES[kit.MODE][-1]
    worker = kit.Worker("celery_app", kind, 1, *COMMAND).start()
    worker.wait_ready()
    task_id = make_task("profile-my-data")
    with kit.gate("hold-" + task_id) as open_gate:
        result = process_analysis.delay(task_id, 1)
        until("state PROCESSING", lambda: result.state == "PROCESSING")
        worker.process.terminate()
        until("it stops", lambda: "Warm shutdown" in worker.text() or "stopping: no new" in worker.text())
        later = debug_task.delay()
        open_gate()
        say("the running one", end(result))
    say("code", worker.stop(), "the one that came later", later.state)
    with kit.workers("celery_app", *COMMAND, kinds=[kit.MODES[kit.MODE][0]]):
        say("and then", end(later))


@scene("result backend", own_workers=True)
def results_beside_the_broker():
    kinds = kit.MODES[kit.MODE]
    worker = kit.Worker("celery_app", kinds[-1], 1, *COMMAND)
    worker.start(CELERY_RESULT_BACKEND=os.environ["CELERY_RESULT_BACKEND"])
    worker.wait_ready()
    outcome("debug_task", debug_task.delay())
    say("code", worker.stop())


if __name__ == "__main__":
    Base.metadata.create_all(engine)
    with SessionLocal() as db:
        db.add(models.User(id=1, email="ada@x.org"))
        db.commit()
    kit.main("celery_app", *COMMAND, leave=("default", "low_priority"))
