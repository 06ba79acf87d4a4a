"""What a task is told about its run: one feature for each field."""

from kit.play import scene
from proj import requests


@scene("self.request")
async def about(play):
    """Of a plain call, and of one with every option."""
    first = await play.life("plain", requests.about.s(1, two=3))
    full = await play.life(
        "full", requests.about.s(1), headers={"tenant": "acme"}, priority=3, queue="other", expires=600,
        time_limit=50, soft_time_limit=40, shadow="a shadow", reply_to="11111111-1111-4111-8111-111111111111",
        root_id="22222222-2222-4222-8222-222222222222", parent_id="33333333-3333-4333-8333-333333333333",
        argsrepr="(secret)", kwargsrepr="{}", link=requests.around.si(), link_error=requests.around.si(),
        stamped_headers=["customer"], customer="acme", compression="gzip", countdown=0.1)
    for label, result in (("plain", first), ("full", full)):
        fields = result.get(timeout=10)
        ids = {result.id: "<this>"}
        for name in sorted(fields):
            value = fields[name]
            play.say(f"{label}: {name}", told(value, ids))
    # They hold all of it once more, and are cut at a place that depends on the length of names.
    play.afterwards(lambda: [play.features.pop(f"{label}: {what}") for label in ("plain", "full")
                             for what in ("result", "events", "log", "signals")])


def told(value, ids):
    """A field; identifiers of this task are seen as such."""
    from kit.plain import plain, show

    text = plain(show(value), ids)
    return text if isinstance(value, str) else f"{type(value).__name__} {text}"


@scene("around a task")
async def around(play):
    """current_task, current_app, sys.argv; on_after_configure with add_periodic_task."""
    result = await play.life("around", requests.around.s())
    found = result.get(timeout=10)
    for name in sorted(found):
        play.say(name, found[name])
    play.afterwards(lambda: play.features.pop("around: result"))
    await play.life("a task called as a function", requests.depth.s())
