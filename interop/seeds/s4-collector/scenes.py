"""The scenes of S4: routes by module, collect-load-report chains, beat with schedules in Redis."""

import contextlib
import os
import subprocess
import sys

os.environ.update(USE_CELERY="true", BEAT_SYNC_SECONDS="0.2")  # 60 s in the seed

import scene_kit as kit
from app import database, sources
from app.celery_worker import celery_app
from app.services import scheduler_service as service
from app.tasks.collect_tasks import execute_collect_task
from app.tasks.etl_tasks import run_etl
from app.tasks.report_tasks import daily_report
from app.tasks.system_tasks import health, retention_cleanup
from celery import chain, chord, group
from scene_kit import document, end, outcome, say, scene, show, until

COMMAND = ("--loglevel=info", "--concurrency=2")
BEAT = ("beat", "--loglevel=info", "--scheduler=app.core.celery_beat_scheduler:RedisBeatScheduler")


def new_job(job_id, *values):
    source = f"source-{job_id}"
    lines = [f"{source}-{number},{value}" for number, value in enumerate(values)]
    (sources.DATA / f"{source}.csv").write_text("\n".join(["key,value", *lines]) + "\n")
    with database.connect() as connection:
        connection.execute("INSERT INTO jobs VALUES (?, ?, 1, 0)", (job_id, source))
    return job_id


def no_rows():
    """Each scene begins with an empty database, whatever was played before it."""
    with database.connect() as connection:
        for table in ("jobs", "runs", "raw_items", "facts"):
            connection.execute(f"DELETE FROM {table}")


def runs(job_id):
    return database.value("SELECT COUNT(*) FROM runs WHERE job_id = ? AND status = 'succeeded'", job_id)


@scene("routes")
def each_task_by_its_queue():
    job_id = new_job(1, 10, 20)
    for task in (execute_collect_task.s(job_id), run_etl.s(), daily_report.s(), health.s()):
        result = task.delay()
        outcome("over", result)
        document("  document", result)


@scene("chain")
def collect_load_report():
    job_id = new_job(2, 1, 2, "many")
    result = chain(execute_collect_task.s(job_id), run_etl.s(), daily_report.s()).apply_async()
    outcome("over", result)
    node = result
    while node is not None:
        end(node)  # Celery sends the next step before it stores the one that is done
        document("document", node)
        node = node.parent


@scene("chord")
def all_jobs_then_a_report():
    jobs = [new_job(number, number) for number in range(10, 15)]
    result = chord(execute_collect_task.s(job_id) for job_id in jobs)(run_etl.s())
    outcome("over", result)
    say("header", sorted(value["job_id"] for value in result.parent.get(timeout=10)))
    document("document", result)


@scene("group")
def all_jobs_at_once():
    jobs = [new_job(number, number, number) for number in range(20, 24)]
    result = group(execute_collect_task.s(job_id) for job_id in jobs).apply_async()
    say("over", result.get(timeout=30))


@scene("failing chord")
def a_chord_of_which_one_fails():
    jobs = [new_job(number, number) for number in range(30, 33)]
    kit.fault("away-source-31", 4)
    result = chord(execute_collect_task.s(job_id) for job_id in jobs)(run_etl.s())
    end(result, 30)
    say(result.state, type(result.result).__name__)
    document("document", result, hide=("traceback", "result"))


@scene("retries")
def a_source_that_comes_back():
    job_id = new_job(40, 1)
    kit.fault("away-source-40", 2)
    result = execute_collect_task.delay(job_id)
    outcome("over", result)
    document("document", result)
    job_id = new_job(41, 1)
    kit.fault("away-source-41", 4)
    result = execute_collect_task.delay(job_id)
    outcome("stays away", result)
    document("document", result)
    say("run", database.value("SELECT status || ', ' || error FROM runs WHERE job_id = ?", job_id))


@scene("callbacks")
def links():
    job_id = new_job(50, 5)
    loaded = daily_report.s().set(task_id="00000000-0000-4000-8000-000000000050")
    result = execute_collect_task.apply_async(args=[job_id], link=loaded)
    outcome("over", result)
    outcome("linked", celery_app.AsyncResult(loaded.options["task_id"]))
    document("document", celery_app.AsyncResult(loaded.options["task_id"]))
    document("its parent", result)


@scene("maintenance")
def a_result_is_ignored():
    for number in (65, 66, 67):
        execute_collect_task.delay(new_job(number, 1)).get(timeout=30)
    result = retention_cleanup.delay(1)
    until("one run is left", lambda: database.value("SELECT COUNT(*) FROM runs") == 1)
    until("its log line", lambda: kit.logs(f"{retention_cleanup.name}[{result.id}] succeeded"))
    say(result.state)


@scene("apscheduler")
def the_old_scheduler():
    job_id = new_job(60, 6)
    os.environ["USE_CELERY"] = "false"
    try:
        from app import main

        main.startup()
        service.add_collect_job(job_id, 0.3)
        say("jobs", service.list_jobs(), service.get_job_status(job_id))
        until("two runs", lambda: runs(job_id) >= 2)
        service.pause_collect_job(job_id)
        say("paused", service.get_job_status(job_id))
        service.remove_collect_job(job_id)
        main.scheduler.scheduler.shutdown()
    finally:
        os.environ["USE_CELERY"] = "true"


@contextlib.contextmanager
def beat():
    log = sources.DATA / "beat.txt"
    argv = [sys.executable, "-m", "celery", "-A", "app.celery_worker", *BEAT,
            "--pidfile=", f"--schedule={sources.DATA}/beat-schedule"]
    with log.open("wb") as out:
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT)
    try:
        yield log
    finally:
        process.terminate()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:  # TERM just after its start is now and then not heard
            process.kill()
            process.wait()


@scene("beat")
def schedules_in_redis():
    job_id = new_job(70, 7)
    with beat() as log:
        until("beat runs", lambda: "beat: Starting" in log.read_text())
        service.add_collect_job(job_id, 0.5)
        until("two runs", lambda: runs(job_id) >= 2)
        say("jobs", service.list_jobs(), service.get_job_status(job_id)["paused"])
        service.pause_collect_job(job_id)
        say("paused", service.get_job_status(job_id))
        service.resume_collect_job(job_id)
        before = runs(job_id)
        until("it runs again", lambda: runs(job_id) > before)
        service.remove_collect_job(job_id)
        say("jobs", service.list_jobs(), service.get_job_status(job_id))
    service.sync_from_database()
    say("synchronised", service.list_jobs())
    service.remove_collect_job(job_id)


@scene("beat by celeriac", not_yet="there is no command beat")
def the_same_scheduler():
    if kit.MODE == "stock":
        with beat() as log:
            until("beat runs", lambda: "beat: Starting" in log.read_text())
    else:
        argv = [kit.CELERIAC, "-A", "app.celery_worker", "--python", sys.executable, *BEAT]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=20, check=False)
        raise AssertionError(f"{done.returncode}: {done.stderr}")
    say("beat starts")


@scene("inspect", whole_fleet=True)
def what_workers_say():
    inspect = kit.inspect(celery_app)
    (queues,) = {show(queues) for queues in inspect.active_queues().values()}
    say("queues", queues)
    (names,) = {show(names) for names in inspect.registered().values()}
    say("registered", names)
    task_id = "00000000-0000-4000-8000-000000000001"
    say("query_task", sorted({show(answer) for answer in inspect.query_task(task_id).values()}))


@scene("settings")
def what_workers_are_set_to():
    wanted = ("task_default_queue", "task_track_started", "result_extended", "task_routes")
    for answer in kit.inspect(celery_app).conf().values():
        for name in wanted:
            say(name, answer[name])


@scene("consumers", whole_fleet=True)
def a_queue_is_left_and_taken_up_again():
    count = len(kit.MODES[kit.MODE])
    said = celery_app.control.cancel_consumer("report", reply=True, timeout=10, limit=count)
    say("left", sorted({show(answer) for reply in said for answer in reply.values()}))
    until("no one consumes it", lambda: "report" not in {
        queue["name"] for queues in kit.inspect(celery_app).active_queues().values() for queue in queues})
    result = daily_report.delay()
    outcome("another queue goes on", health.delay())
    say("waits", result.state)
    said = celery_app.control.add_consumer("report", reply=True, timeout=10, limit=count)
    say("taken up", sorted({show(answer) for reply in said for answer in reply.values()}))
    end(result)
    say("over", result.state)


@scene("redis url", own_workers=True)
def redis_url_is_for_the_schedules():
    os.environ["SEED_BROKER"] = os.environ["CELERY_BROKER_URL"]
    import own_app

    worker = kit.Worker("own_app", kit.MODES[kit.MODE][-1], 1, "-l", "info")
    worker.start(REDIS_URL=os.environ["REDIS_URL"].replace("/0", "/5"), CELERY_BROKER_URL=None,
                 CELERY_RESULT_BACKEND=None)
    worker.wait_ready()
    outcome("add", own_app.add.delay(2, 3), 6)
    say("code", worker.stop())


@scene("limits of the environment", own_workers=True,
       not_yet="CELERY_CONCURRENCY overrules what the app sets")
def celery_reads_no_such_variables():
    os.environ["SEED_BROKER"] = os.environ["CELERY_BROKER_URL"]
    import own_app

    worker = kit.Worker("own_app", kit.MODES[kit.MODE][-1], 1, "-l", "info")
    worker.start(CELERY_CONCURRENCY="3", CELERY_TASK_TIME_LIMIT="5")
    worker.wait_ready()
    for settings in kit.inspect(own_app.app).conf().values():
        say({name: settings[name] for name in ("worker_concurrency", "task_time_limit")})
    say("code", worker.stop())


@scene("tests of the seed", whole_fleet=True)
def the_seeds_tests():
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "tests/test_celery_e2e.py", "-v", "-p", "no:cacheprovider"],
        capture_output=True, text=True, check=False)
    say("code", done.returncode)
    for line in done.stdout.splitlines():
        if "::" in line:
            say(line.split("[")[0].strip())


if __name__ == "__main__":
    database.create()
    kit.main("app.celery_worker", *COMMAND, leave=("collect", "report"), before=no_rows)
