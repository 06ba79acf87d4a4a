"""The scenes of S1: the migration guide's dispatcher, its tools, queues, progress and retries."""

import os
import subprocess
import sys

import scene_kit as kit
from agq.celery_app import celery_app
from agq.config import get_queue_config
from agq.tasks import process_data_task, process_profile_task
from api.task_routes import create_task, trigger_processing
from db import models
from db.database import Base, SessionLocal, engine
from scene_kit import document, end, outcome, say, scene, show, until
from services.s3_service import s3_service

COMMAND = ("--loglevel=info", "--concurrency=2")
PEOPLE = "name,email\nAda, ADA@x.org\nAda,ada@x.org\nBob,\n"
TOOLS = ("profile-my-data", "clean-my-data", "master-my-data")


def new_task(tool_id, user_id=1):
    task_id = create_task(user_id, tool_id)
    s3_service.put(user_id, task_id, "input.csv", PEOPLE)
    return task_id


def row(task_id):
    with SessionLocal() as db:
        task = db.get(models.Task, task_id)
        return {
            "status": task.status, "progress": task.progress, "agent": task.current_agent,
            "error_code": task.error_code, "error_message": task.error_message,
            "times": [name for name in ("processing_started_at", "completed_at", "failed_at")
                      if getattr(task, name)],
        }


@scene("banner", whole_fleet=True,
        on_purpose="task events are sent unless somebody says no")
def banner():
    for line in kit.first_log().splitlines():
        if any(mark in line for mark in (".> ", "[queues]", "[tasks]", "  . ", "Connected to", "ready.")):
            say(line.strip())


@scene("dispatch")
def each_tool_by_its_queue():
    for tool_id in (*TOOLS, "bake-my-data"):
        task_id = new_task(tool_id)
        say(tool_id, "created", row(task_id)["status"])
        dispatched = trigger_processing(task_id, 1)
        say("  dispatched", dispatched)
        result = celery_app.AsyncResult(dispatched["celery_task_id"])
        outcome("  over", result)
        say("  row", row(task_id))
        document("  document", result)


@scene("threads")
def the_flag_is_off():
    get_queue_config().set_use_celery(False)
    try:
        task_id = new_task("clean-my-data")
        say(trigger_processing(task_id, 1))
        until("the thread is done", lambda: row(task_id)["status"] == "COMPLETED")
        say(row(task_id))
    finally:
        get_queue_config().set_use_celery(True)


@scene("entities")
def unknown_entities():
    task_id = new_task("profile-my-data", user_id=2)
    outcome("unknown user", process_data_task.delay(task_id, 2))
    say("  T-17: the row stays", row(task_id)["status"])
    outcome("unknown task", process_data_task.delay("no-such-task", 1))


@scene("progress")
def progress_while_it_runs():
    task_id = new_task("profile-my-data")
    with kit.gate("hold-" + task_id) as open_gate:
        result = process_profile_task.delay(task_id, 1)
        until("the reader", lambda: (result.info or {}).get("current_agent") == "reader")
        say(result.state, result.info)
        say("row", row(task_id))
        document("document", result)
        (task,) = [task for tasks in kit.inspect(celery_app).active().values() for task in tasks]
        say("active", {key: task[key] for key in ("name", "args", "kwargs", "delivery_info")})
        open_gate()
    outcome("over", result)


@scene("acknowledged")
def acknowledged_early():
    task_id = new_task("profile-my-data")
    with kit.gate("hold-" + task_id) as open_gate:
        result = process_profile_task.delay(task_id, 1)
        until("the reader", lambda: (result.info or {}).get("current_agent") == "reader")
        (task,) = [task for tasks in kit.inspect(celery_app).active().values() for task in tasks]
        say("acknowledged", task["acknowledged"])
        open_gate()
    end(result)


@scene("retries")
def s3_resets_twice():
    kit.fault("s3-reset", 2)
    task_id = new_task("master-my-data")
    result = celery_app.AsyncResult(trigger_processing(task_id, 1)["celery_task_id"])
    until("state RETRY", lambda: result.state in ("RETRY", "SUCCESS"))
    outcome("over", result, 60)
    say(" ", row(task_id))
    document("  document", result)
    until("two retries in the logs", lambda: len(kit.logs(f"[{result.id}] retry: Retry in")) == 2)
    for line in kit.logs(f"Task {result.id} retrying:"):
        say("  on_retry", line.split("Task ", 1)[1])


@scene("retries end")
def s3_stays_away():
    kit.fault("s3-reset", 4)
    task_id = new_task("profile-my-data")
    result = celery_app.AsyncResult(trigger_processing(task_id, 1)["celery_task_id"])
    outcome("over", result, 60)
    say("  T-18: the row stays", row(task_id)["status"])
    document("  document", result)
    until("on_failure", lambda: kit.logs(f"Task {result.id} failed"))
    say("  on_failure", kit.logs(f"Task {result.id} failed")[0].split("Task ", 1)[1])


@scene("soft limit")
def over_the_soft_limit():
    task_id = new_task("profile-my-data")
    with kit.gate("hold-" + task_id):
        result = process_profile_task.apply_async(args=[task_id, 1], soft_time_limit=1)
        outcome("over, as an error that is a success (T-12, T-19)", result)
    say(" ", row(task_id))


@scene("hard limit")
def over_the_hard_limit():
    task_id = new_task("profile-my-data")
    with kit.gate("deaf-" + task_id):
        result = process_profile_task.apply_async(args=[task_id, 1], time_limit=2, soft_time_limit=1)
        outcome("over", result, 20)
        document("  document", result)
    say("  on_failure is not called", not kit.logs(f"Task {result.id} failed"))
    say("  T-18: the row stays", row(task_id)["status"])


@scene("child killed")
def a_child_is_killed():
    task_id = new_task("profile-my-data")
    with kit.gate("hold-" + task_id) as _open:
        result = process_profile_task.delay(task_id, 1)
        until("the reader", lambda: (result.info or {}).get("current_agent") == "reader")
        (task,) = [task for tasks in kit.inspect(celery_app).active().values() for task in tasks]
        os.kill(task["worker_pid"], 9)
        end(result, 20)
        say("over", result.state, type(result.result).__name__)
        document("  document", result, hide=("traceback", "result"))


@scene("revoked")
def revoked_before_it_starts():
    task_id = new_task("profile-my-data")
    result = process_profile_task.apply_async(args=[task_id, 1], countdown=30)
    until("it is scheduled", lambda: [task for tasks in kit.inspect(celery_app).scheduled().values()
                                      for task in tasks if task["request"]["id"] == result.id])
    celery_app.control.revoke(result.id)
    until("it is known to be revoked", lambda: result.id in show(kit.inspect(celery_app).revoked()))
    task_id = new_task("profile-my-data")
    waiting = process_profile_task.apply_async(args=[task_id, 1], task_id=result.id)
    outcome("sent again under that id", waiting, 20)
    document("  document", waiting)


@scene("terminated")
def terminated_while_it_runs():
    task_id = new_task("profile-my-data")
    with kit.gate("hold-" + task_id):
        result = process_profile_task.delay(task_id, 1)
        until("the reader", lambda: (result.info or {}).get("current_agent") == "reader")
        result.revoke(terminate=True)
        outcome("over", result, 20)
        document("  document", result)


@scene("inspect", whole_fleet=True)
def what_workers_say():
    inspect = kit.inspect(celery_app)
    say("ping", sorted({show(answer) for answer in inspect.ping().values()}))
    (queues,) = {show(queues) for queues in inspect.active_queues().values()}
    say("queues", queues)
    (names,) = {show(names) for names in inspect.registered().values()}
    say("registered", names)


@scene("purge")
def purge_of_the_rollback():
    say("purged", celery_app.control.purge())
    celery_app.send_task("process_profile_task", args=["x", 1], queue="nobody-consumes-this")
    with celery_app.connection_for_write() as connection:
        say("purged by name", connection.default_channel.queue_purge("nobody-consumes-this"))


@scene("unit tests")
def the_seeds_unit_tests():
    done = subprocess.run([sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests"],
                          capture_output=True, text=True, check=False)
    say("code", done.returncode, done.stdout.splitlines()[0] if done.stdout else done.stderr)


@scene("tool workers", own_workers=True)
def a_worker_for_each_tool():
    kinds = kit.MODES[kit.MODE]
    with kit.workers("agq.celery_app", "-l", "info", "-c", "1", "-Q", "profile,master", kinds=kinds[:1]):
        done, waiting = new_task("profile-my-data"), new_task("clean-my-data")
        result = trigger_processing(done, 1)
        other = celery_app.AsyncResult(trigger_processing(waiting, 1)["celery_task_id"])
        outcome("profile", celery_app.AsyncResult(result["celery_task_id"]))
        say("clean waits", other.state)
    with kit.workers("agq.celery_app", "-l", "info", "-c", "1", "-Q", "clean", kinds=kinds[-1:]):
        outcome("clean", other)


@scene("shutdown", own_workers=True)
def the_drain_of_the_rollback():
    celery_app.control.purge()  # what earlier scenes left scheduled
    # Celery's code depends on what it was doing when the message came.
    with kit.workers("agq.celery_app", *COMMAND, any_code=True) as workers:
        task_id = new_task("profile-my-data")
        with kit.gate("hold-" + task_id) as open_gate:
            result = process_profile_task.delay(task_id, 1)
            until("the reader", lambda: (result.info or {}).get("current_agent") == "reader")
            celery_app.control.shutdown()
            open_gate()
            outcome("the running one", result)
        until("all workers end", lambda: all(worker.process.poll() is not None for worker in workers))
        say("all workers ended")


if __name__ == "__main__":
    os.environ["USE_CELERY"] = "true"
    Base.metadata.create_all(engine)
    with SessionLocal() as db:
        db.add(models.User(id=1, email="ada@x.org"))
        db.commit()
    kit.main("agq.celery_app", *COMMAND, leave=("profile", "master"))
