"""Revocation and remote control, by Celery's own client."""

from kit.play import scene
from kit.stage import until
from proj import canvas, outcomes
from proj.celery import app

#: The common worker. Stock Celery's others would store a revocation too, each in its own way.
NODE = "w1@semantics"
#: Long enough to be revoked before its time, on a busy machine too; in seconds.
WAITS = 4


def broadcast(command, *arguments, **options):
    """What the worker answers."""
    replies = app.control.broadcast(command, arguments=options, destination=[NODE], reply=True, timeout=10, limit=1)
    return replies[0][NODE] if replies else "no answer"


async def known(play, result):
    """Waits until a worker knows of a task that waits for its time."""
    await until("it is known", lambda: play.stage.events_of(result.id, "task-received") or [
        one for one in broadcast("scheduled") if one["request"]["id"] == result.id])


async def revoke_told(play, label, result):
    """How its caller hears of it."""
    await until(f"the end of {label}", result.ready)
    await play.end(label, result.id, ("task-revoked", "task-failed"))
    play.say(f"{label}: AsyncResult", [result.state, repr(result.result)])
    play.afterwards(lambda: play.say(f"{label}: Terminating", "\n".join(
        play.worker.lines(f"Terminating {result.id}")) or "no line"))


@scene("revoke")
async def revoke(play):
    """Waiting and running tasks."""
    waiting = outcomes.add.apply_async((1, 1), countdown=WAITS)
    play.watch("waiting", waiting.id)
    await known(play, waiting)
    app.control.revoke(waiting.id, destination=[NODE])
    await revoke_told(play, "waiting", waiting)
    before = outcomes.add.apply_async((1, 1), countdown=WAITS, task_id="44444444-0000-4000-8000-000000000000")
    play.watch("by a list of ids", before.id)
    await known(play, before)
    app.control.revoke([before.id, "55555555-0000-4000-8000-000000000000"], destination=[NODE])
    await revoke_told(play, "by a list of ids", before)
    running = outcomes.held.delay("revoke")
    play.watch("running, not terminated", running.id)
    await play.stage.waiting("revoke")
    # Stock Celery says REVOKED at once and something else later: its answer is waited for.
    app.control.revoke(running.id, destination=[NODE], reply=True, timeout=10, limit=1)
    play.stage.open("revoke")
    await play.end("running, not terminated", running.id)


@scene("terminate", deaths=True)
async def terminate(play):
    """By TERM, KILL and the signal of the soft limit."""
    for word, options in (("terminate", {}), ("terminate by KILL", {"signal": "SIGKILL"}),
                          ("terminate by USR1", {"signal": "SIGUSR1"})):
        running = outcomes.held.delay(word)
        play.watch(word, running.id)
        await play.stage.waiting(word)
        app.control.revoke(running.id, terminate=True, destination=[NODE], **options)
        if word.endswith("USR1"):
            await play.end(word, running.id, ("task-failed",))
        else:
            await revoke_told(play, word, running)
    late = outcomes.late_held.delay("late")
    play.watch("terminate, acks_late", late.id)
    await play.stage.waiting("late")
    app.control.terminate(late.id, destination=[NODE])
    await revoke_told(play, "terminate, acks_late", late)


@scene("revoke by stamp", deaths=True)
async def by_stamp(play):
    """Waiting and running."""
    waiting = canvas.stamped.s().set(countdown=WAITS)
    waiting.stamp(tenant="gone")
    waiting = waiting.apply_async()
    play.watch("waiting", waiting.id)
    held = outcomes.held.s("stamp")
    held.stamp(tenant="gone too")
    held = held.apply_async()
    play.watch("running, terminated", held.id)
    await play.stage.waiting("stamp")
    await known(play, waiting)
    app.control.revoke_by_stamped_headers({"tenant": ["gone", "gone too"]}, terminate=True, destination=[NODE])
    await revoke_told(play, "waiting", waiting)
    await revoke_told(play, "running, terminated", held)


@scene("inspect")
async def inspect(play):
    """What the worker says about this app and its tasks."""
    play.say("ping", broadcast("ping"))
    play.say("registered", broadcast("registered", taskinfoitems=["rate_limit"]))
    play.say("active_queues: names", sorted(queue["name"] for queue in broadcast("active_queues")))
    held = outcomes.held.delay("inspect")
    await play.stage.waiting("inspect")
    active = [one for one in broadcast("active") if one["id"] == held.id]
    for name, value in sorted((active[0] if active else {}).items()):
        shown = type(value).__name__ if name in ("time_start", "worker_pid") else value
        play.say(f"active: {name}", shown)
    found = broadcast("query_task", ids=[held.id])
    play.say("query_task", [place for place, _task in found.values()])
    play.stage.open("inspect")
    await play.end("held", held.id)
    play.say("time_limit", broadcast("time_limit", task_name="proj.limits.soft", soft=0.5, hard=30))
    stats = broadcast("stats")
    play.say("stats", sorted(stats))
    play.say("stats: pool", sorted(stats["pool"]))
    conf = broadcast("conf", with_defaults=False)
    for name in sorted(conf):
        play.say(f"conf: {name}", conf[name])
    scheduled = outcomes.add.apply_async((1, 1), countdown=WAITS)
    listed = await until("it is scheduled", lambda: [
        one for one in broadcast("scheduled") if one["request"]["id"] == scheduled.id])
    play.say("scheduled", {**listed[0], "request": sorted(listed[0]["request"])})
    await play.end("scheduled", scheduled.id)
