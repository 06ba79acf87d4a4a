"""Every way a task can end."""

import asyncio
from datetime import datetime, timedelta, timezone

from kit.play import scene
from proj import outcomes
from proj.celery import app
from proj.shop import tasks as shop


@scene("success and failure")
async def plain_outcomes(play):
    """What everybody does all day."""
    await play.life("success", outcomes.add.s(2, 3))
    await play.life("keyword arguments", outcomes.add.s(x=2, y=3))
    await play.life("failure", outcomes.fails.s("no rows"))
    await play.life("expected failure (throws)", outcomes.fails_expectedly.s())
    await play.life("bind", outcomes.bound.s("hello"))
    # The client would refuse them, were it not by name.
    await play.life("wrong arguments", app.send_task(outcomes.add.name, (1, 2, 3)))
    await play.life("exception that cannot be pickled", outcomes.odd.s())
    await play.life("result that cannot be encoded", outcomes.unencodable.s())
    await play.life("task_routes", outcomes.routed.s())


@scene("autodiscovery")
async def autodiscovery(play):
    """Tasks that no import names."""
    await play.life("shared task", shop.buy.s("milk"))
    await play.life("shared task with a name", shop.named.s())


@scene("acknowledgement")
async def acknowledgement(play):
    """Ignore, Reject and retry, of tasks that are acknowledged early and late."""
    for kind in (outcomes.early, outcomes.late):
        word = "early" if kind is outcomes.early else "late"
        await play.life(f"{word}: success", kind.s("fine"))
        await play.life(f"{word}: failure", kind.s("fail"))
        ignored = await play.life(f"{word}: Ignore", kind.s("ignore"), wait=False)
        await play.ran(f"{word}: Ignore", ignored.id)
        rejected = await play.life(f"{word}: Reject", kind.s("reject"), wait=False)
        await play.ran(f"{word}: Reject", rejected.id)
    rejected = await play.life("early: Reject with requeue", outcomes.early.s("requeue"), wait=False)
    await play.ran("early: Reject with requeue", rejected.id)
    await play.life("late: Reject with requeue", outcomes.late.s("requeue"), ends=("task-succeeded",))
    await play.life("acks_on_failure_or_timeout off: success", outcomes.late_keeps.s("fine"))
    await play.life("acks_on_failure_or_timeout off: failure", outcomes.late_keeps.s("fail"),
                    ends=("task-rejected",))
    play.afterwards(lambda: play.say("left on the broker", play.stage.left()))


@scene("worker lost", deaths=True)
async def lost(play):
    """A child that is killed under its task."""
    await play.life("early", outcomes.early.s("die"))
    await play.life("late", outcomes.late.s("die"))
    await play.life("late, reject_on_worker_lost", outcomes.late_lost.s("die"), ends=("task-succeeded",))
    await play.life("SystemExit", outcomes.leaves.s(3))


@scene("retry")
async def retry(play):
    """Tasks that try again."""
    done = ("task-succeeded", "task-failed")
    await play.life("retry", outcomes.late.s("retry"), ends=done)
    await play.life("autoretry_for", outcomes.autoretries.s(2), ends=done)
    await play.life("autoretry_for, max_retries reached", outcomes.autoretries.s(9), ends=done)
    await play.life("dont_autoretry_for, retry_backoff", outcomes.autoretries_but.s(), ends=done)
    await play.life("max_retries reached", outcomes.retries_out.s(False), ends=done)
    await play.life("max_retries reached, exc", outcomes.retries_out.s(True), ends=done)
    await play.life("retry with other arguments", outcomes.retries_changed.s("one"), ends=done)
    await play.life("retry in except", outcomes.retries_in_except.s(), ends=done)


@scene("custom classes", deaths=True)
async def classes(play):
    """Task and Request classes of the app's own."""
    await play.life("Task: success", outcomes.hooked.s("fine"))
    await play.life("Task: failure", outcomes.hooked.s("fail"))
    await play.life("Task: retry", outcomes.hooked.s("retry"), ends=("task-succeeded",))
    await play.life("Task: hard limit", outcomes.hooked_slow.s("slow"), ends=("task-failed",))
    await play.life("Request: success", outcomes.requested.s("fine"))
    await play.life("Request: failure", outcomes.requested.s("fail"))
    await play.life("Request: hard limit", outcomes.requested_slow.s("slow"), ends=("task-failed",))


@scene("results")
async def results(play):
    """What is stored, and what is not."""
    done = ("task-succeeded", "task-failed")
    await play.life("update_state", outcomes.steps.s())
    await play.life("track_started", outcomes.tracked.s())
    document = play.stage.document((await play.life("members", outcomes.add.s(1, 1))).id)
    play.say("members of a document", sorted(document))
    await play.life("ignore_result", outcomes.forgotten.s(), ends=done)
    await play.life("ignore_result of a call", outcomes.add.s(1, 2), ends=done, ignore_result=True)
    await play.life("ignore_result, failure", outcomes.forgotten_fails.s(), ends=done)
    await play.life("store_errors_even_if_ignored", outcomes.errors_kept.s(), ends=done)
    await play.life("shadow", outcomes.add.s(1, 2), shadow="a shadow")
    first = await play.life("sends from inside", outcomes.calls.s())
    play.say("children of the sender", [len(first.children or []), type(first.info).__name__])
    made = await play.life("read by another task", outcomes.add.s(1, 1))
    await play.life("reads another task's result", outcomes.gets.s(made.id))


@scene("expires and eta")
async def times(play):
    """Messages with a time."""
    now = datetime.now(timezone.utc)
    late = await play.life("expires in the past", outcomes.add.s(1, 1), expires=now - timedelta(minutes=1))
    play.say("expires in the past: AsyncResult", [late.state, repr(late.result)])
    await play.life("expires before its eta", outcomes.add.s(1, 1), countdown=1, expires=0.5)
    await play.life("expires later", outcomes.add.s(1, 1), expires=60)
    began = asyncio.get_running_loop().time()
    await play.life("countdown", outcomes.add.s(1, 1), countdown=1)
    took = asyncio.get_running_loop().time() - began
    play.say("countdown: when", "on time" if 1 <= took < 4 else f"after {took:.1f} s")
    await play.life("eta in the past", outcomes.add.s(1, 1), eta=now - timedelta(minutes=1))


@scene("unknown task")
async def unknown(play):
    """A name that no task of this app has."""
    result = app.send_task("proj.nothing", (1,), task_id="11111111-0000-4000-8000-000000000000")
    play.watch("unknown", result.id)
    ready = await first_of(result)
    play.say("what its caller sees", [ready and result.state, ready and repr(result.result)])


async def first_of(result):
    """Whether it is over when other tasks that were sent after it are."""
    for number in range(8):
        after = outcomes.add.delay(number, 0)
        while not after.ready():
            await asyncio.sleep(0.02)
    return result.ready()
