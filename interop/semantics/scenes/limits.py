"""Time limits and rates."""

from kit.play import scene
from kit.stage import until
from proj import limits


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
    """Four a second: the first at once, the others a quarter of a second apart."""
    results = [limits.slow_lane.delay(number) for number in range(4)]
    await until("four tasks", lambda: all(result.ready() for result in results))
    ids = {result.id for result in results}
    times = sorted(note["at"] for note in play.stage.notes("time") if note["id"] in ids)
    spread = times[-1] - times[0]
    play.say("four tasks of 4/s take", "0.7 s" if 0.6 < spread < 1.5 else f"{spread:.2f} s")
    play.watch("rate_limit", results[0].id)
