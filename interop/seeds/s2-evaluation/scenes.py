"""The scenes of S2: the gateway's choice, verdicts, retries, cancellation, priorities, recovery."""

import asyncio

import scene_kit as kit
from api import microservices_gateway as gateway
from evaluation import storage
from evaluation.celery_app import celery_app
from evaluation.recover import recover
from evaluation.submit import submit_evaluation_to_celery
from evaluation.tasks import cancel
from scene_kit import document, end, outcome, say, scene, show, until

COMMAND = ("--loglevel=info", "--concurrency=2")


def row(eval_id):
    ((*values,),) = storage.read(
        "SELECT language, verdict, retry_count, queue_system FROM evaluations WHERE eval_id = ?", eval_id)
    return values


def submitted(eval_id, code="print(6 * 7)", language="python", **options):
    return celery_app.AsyncResult(submit_evaluation_to_celery(eval_id, code, language, **options))


def runs(eval_id):
    return len(storage.read("SELECT 1 FROM runs WHERE eval_id = ?", eval_id))


@scene("selection")
def the_gateway_chooses():
    submitter = gateway.EvaluationSubmitter()
    for share, force in ((1.0, False), (0.0, False), (1.0, True)):
        submitter.celery_percentage, submitter.force_legacy_queue = share, force
        eval_id = f"choice-{share}-{force}"
        sent = asyncio.run(submitter.submit_evaluation(eval_id, "print(1)", "python"))
        if share and not force:
            outcome("over", celery_app.AsyncResult(sent))
        say(share, force, row(eval_id))
    say("metrics", gateway.celery_tasks_submitted._value.get(), gateway.legacy_tasks_submitted._value.get())


@scene("verdicts")
def verdicts():
    for eval_id, code in (("good", "print(6 * 7)"), ("bad", "raise SystemExit(3)")):
        result = submitted(eval_id, code)
        outcome(eval_id, result)
        say(" ", row(eval_id))
        document("  document", result)
    result = submitted("odd", "1", "cobol")
    outcome("odd", result)
    document("  document", result)


@scene("retries")
def the_sandbox_comes_back():
    kit.fault("sandbox-shaky", 2)
    result = submitted("shaky")
    outcome("shaky", result, 30)
    say(" ", row("shaky"))
    document("  document", result)
    kit.fault("sandbox-gone", 4)
    result = submitted("gone")
    outcome("gone", result, 60)
    say(" ", row("gone"), runs("gone"))
    document("  document", result)


@scene("cancel")
def cancellation():
    with kit.gate("hold-running"):
        running = submitted("running")
        until("it runs", lambda: runs("running"))
        until("it is active", lambda: running.id in show(kit.inspect(celery_app).active()))
        cancel(running.id)
        outcome("running", running)
        document("  document", running)
    waiting = submitted("waiting", countdown=2)
    until("it waits", lambda: waiting.id in show(kit.inspect(celery_app).scheduled()))
    cancel(waiting.id)
    outcome("waiting", waiting)
    say("  runs", runs("waiting"))


@scene("recovery")
def running_work_goes_back_to_legacy():
    with kit.gate("hold-recovered"):
        result = submitted("recovered", "print('kept')")
        until("it is active", lambda: result.id in show(kit.inspect(celery_app).active()))
        say("recovered", recover(timeout=10, limit=len(kit.MODES[kit.MODE])))
        end(result)
    say(result.state, row("recovered"), storage.read(
        "SELECT * FROM legacy_tasks WHERE eval_id = 'recovered'"))


@scene("events")
def what_monitors_see():
    with kit.Events(celery_app) as events:
        result = submitted("watched")
        events.wait_for("task-succeeded", result.id)
        for event in events.of(result.id):
            hidden = ("clock", "timestamp", "local_received", "pid", "runtime", "hostname", "utcoffset")
            say(event["type"], sorted(event), {k: v for k, v in event.items() if k not in hidden})
        failed = submitted("watched-odd", "1", "cobol")
        (event,) = events.wait_for("task-failed", failed.id)
        say(event["type"], sorted(event), event["exception"])


@scene("fair")
def many_evaluations():
    results = [submitted(f"many-{number}", f"print({number})") for number in range(30)]
    say(sorted({end(result) for result in results}), [result.result["output"].strip() for result in results])


@scene("priorities", own_workers=True)
def important_ones_first():
    for number in range(4):
        submitted(f"low-{number}", priority=9)
    for number in range(3):
        submitted(f"high-{number}", priority=0)
    results = [submitted("middle", priority=5)]
    with kit.workers("evaluation.celery_app", "-l", "info", "-c", "1", kinds=kit.MODES[kit.MODE][-1:]):
        until("all have run", lambda: runs("low-3") and runs("low-2") and runs("low-1") and runs("low-0"))
        end(results[0])
    order = [eval_id for eval_id, in storage.read("SELECT eval_id FROM runs ORDER BY rowid")]
    say([eval_id for eval_id in order if eval_id.split("-")[0] in ("low", "high", "middle")])


@scene("one worker of two", own_workers=True)
def a_worker_stops_and_nothing_is_lost():
    kinds = kit.MODES[kit.MODE]
    first = kit.Worker("evaluation.celery_app", kinds[0], 1, "-l", "info", "-c", "1").start()
    second = kit.Worker("evaluation.celery_app", kinds[-1], 2, "-l", "info", "-c", "1").start()
    first.wait_ready()
    second.wait_ready()
    results = [submitted(f"split-{number}") for number in range(20)]
    until("five are done", lambda: sum(result.ready() for result in results) >= 5)
    say("code", first.stop())
    say(sorted({end(result) for result in results}))
    say("code", second.stop())
    say("each ran once", [runs(f"split-{number}") for number in range(20)] == [1] * 20)


if __name__ == "__main__":
    storage.create()
    kit.main("evaluation.celery_app", *COMMAND)
