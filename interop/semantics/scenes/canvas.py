"""Workflows."""

from celery import chain, chord, group
from celery.canvas import StampingVisitor
from kit.play import scene
from kit.stage import until
from proj.canvas import becomes, breaks, double, errback, fans_out, old_errback, stamped, total
from proj.outcomes import add, echo


async def ended(play, feature, result):
    """Says how a workflow ended for its caller."""
    await until(feature, result.ready)
    try:
        value = result.get(timeout=10)
    except Exception as error:
        value = f"{type(error).__name__}: {error}"
    play.say(f"{feature}: get()", value)


@scene("chains and groups")
async def chains(play):
    """In a row and side by side."""
    for feature, made, tasks in (
        ("chain", chain(add.s(1, 2), double.s(), add.s(10)), 3),
        ("chain that breaks", chain(add.s(1, 2), breaks.s(), double.s()), 2),
        ("immutable signatures", chain(add.si(1, 2), add.si(3, 4)), 2),
        ("group", group(add.s(n, n) for n in range(3)), 0),
        ("group that breaks", group(add.s(1, 1), breaks.s()), 0),
        ("chain of groups", chain(group(add.s(1, 1), add.s(2, 2)), group(total.s(), total.s())), 0),
        ("map", echo.map([1, 2, 3]), 1),
        ("starmap", add.starmap([(1, 2), (3, 4)]), 1),
        ("chunks", add.chunks([(n, n) for n in range(4)], 2).group(), 0),
    ):
        result = made.apply_async()
        await ended(play, feature, result)
        if tasks:
            await play.tree(feature, result, tasks)


@scene("chords")
async def chords(play):
    """Groups with a body."""
    for feature, made in (
        ("chord", chord([add.s(n, n) for n in range(3)], total.s())),
        ("chord of one", chord([add.s(1, 1)], total.s())),
        ("chord that breaks", chord([add.s(1, 1), breaks.s()], total.s())),
        ("chord of chains", chord([chain(add.s(n, n), double.s()) for n in range(2)], total.s())),
        ("group in a chain", chain(add.s(1, 1), group(add.s(1), add.s(2)), total.s(), double.s())),
        ("chord in a chord", chord([chord([add.s(1, 1), add.s(2, 2)], total.s()), add.s(3, 3)], total.s())),
    ):
        await ended(play, feature, made.apply_async())


@scene("links")
async def links(play):
    """Callbacks of success and failure."""
    for feature, made, tasks in (
        ("link", add.s(1, 2).set(link=[double.s(), add.s(5)]), 3),
        ("link_error", breaks.s().set(link_error=errback.s()), 1),
        ("link_error, old form", breaks.s().set(link_error=old_errback.s()), 2),
        ("on_error of a chain", chain(add.s(1, 2), breaks.s(), double.s()).on_error(errback.s()), 2),
    ):
        result = made.apply_async()
        await ended(play, feature, result)
        await play.tree(feature, result, tasks)


@scene("replace")
async def replaced(play):
    """A task that becomes another; one that sends a group."""
    for feature, made, tasks in (
        ("replace by a task", becomes.s("task"), 2),
        ("replace by a chain", becomes.s("chain"), 3),
        ("replace by a group", becomes.s("group"), 4),
        ("replace in a chain", chain(becomes.s("task"), double.s()), 3),
    ):
        result = made.apply_async()
        await ended(play, feature, result)
        await play.tree(feature, result, tasks, parents=not feature.endswith("group"))
    result = fans_out.delay(2)
    await ended(play, "a group from inside", result)
    await play.tree("a group from inside", result, 3)


class Visitor(StampingVisitor):
    """Stamps every task of a workflow."""

    def on_signature(self, sig, **headers):
        return {"customer": "acme", "step": sig.task, "stamped_headers": ["customer", "step"]}


@scene("stamps")
async def stamps(play):
    """Of one task and of a workflow."""
    made = stamped.s()
    made.stamp(customer="acme", order=7)
    await play.life("stamp of a task", made)
    made = chain(stamped.s(), echo.s())
    made.stamp(visitor=Visitor())
    result = made.apply_async()
    await ended(play, "stamps of a chain", result)
    await play.tree("stamps of a chain", result, 2)
