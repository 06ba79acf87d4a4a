"""Time limits and rates."""

import time

from kit.play import scene
from kit.stage import until
from proj import limits
from scenes.control import broadcast


@scene("time limits", deaths=True)
async def time_limits(play):
    """Soft ones can be caught, hard ones kill."""
    await play.life("soft, caught", limits.soft_caught.s())
    await play.life("soft", limits.soft.s())
    await play.life("hard", limits.hard.s())
    await play.life("of a call", limits.called.s(), soft_time_limit=0.5, time_limit=20)


@scene("time limits, acks_late", deaths=True)
async def late_limits(play):
    """Whether the message comes back."""
    await play.life("acknowledged", limits.late_hard.s())
    await play.life("acks_on_failure_or_timeout off", limits.late_keeps.s(), ends=("task-succeeded",))


@scene("rate_limit")
async def rates(play):
    """Two a second: the first at once, the others half a second apart."""
    # kombu's bucket lets two of the first pass: it counts from its own making (utils/limits.py).
    first = limits.slow_lane.delay(0)
    await until("the first task", first.ready)
    sent = time.time()
    results = [limits.slow_lane.delay(number) for number in range(3)]
    await until("three tasks", lambda: all(result.ready() for result in results))
    ids = {result.id for result in results}
    times = sorted(note["at"] for note in play.stage.notes("time") if note["id"] in ids)
    # No later: a busy machine may begin with the first of them late, and then hurry.
    took = times[-1] - sent
    play.say("the third of three with 2/s begins", "after a second" if 0.9 < took < 9 else f"after {took:.2f} s")
    play.watch("rate_limit", results[0].id)
    # Stock Celery fills the buckets of all tasks anew with each of these, so they come last.
    play.say("control: rate_limit", broadcast("rate_limit", task_name="proj.shop.tasks.buy", rate_limit="100/s"))
    play.say("control: rate_limit, unknown task", broadcast("rate_limit", task_name="proj.nothing", rate_limit="1/s"))
    play.say("control: rate_limit, no rate", broadcast("rate_limit", task_name="proj.shop.tasks.buy", rate_limit="often"))
