"""Every shape of canvas, once. A shape gets the tasks with its own name as their tag, and returns what is sent."""

from celery import chain, chord, group
from celery.canvas import StampingVisitor

from . import proj

#: Name of a shape to (how it is made, what it needs, options of `apply_async`).
SHAPES = {}
#: Stamped tasks with this are revoked before anything is sent.
REVOKED = "revoked-before"


def shape(needs="", **options):
    """Adds a shape; `needs` is `python` where a task is that Rust has not, `new` for errbacks of the new form."""
    def add(make):
        SHAPES[make.__name__.rstrip("_").replace("_", " ")] = (make, needs, options)
        return make
    return add


class Tasks:
    """Signatures that carry the name of their shape."""

    def __init__(self, tag):
        self._tag = tag

    def __getattr__(self, name):
        task = getattr(proj, name)
        return lambda *args, **options: task.s(*args, tag=self._tag, **options)


# -- one after another, side by side -------------------------------------------------------------------


@shape()
def task_(t):
    return t.add(1, 2)


@shape()
def chain_(t):
    return chain(t.add(1, 2), t.add(10), t.add(100))


@shape()
def chain_of_chains(t):
    return chain(chain(t.add(1, 2), t.add(10)), chain(t.add(100), t.add(1000)))


@shape()
def immutable_steps(t):
    return chain(t.add(1, 2), t.add(3, 4).set(immutable=True), t.add(10))


@shape()
def group_(t):
    return group(t.add(n, n) for n in range(3))


@shape()
def group_in_a_group(t):
    return group(t.add(1, 1), group(t.add(2, 2), t.add(3, 3)))


@shape()
def group_of_chains(t):
    return group(chain(t.add(n, n), t.add(10)) for n in range(2))


@shape()
def chain_that_ends_in_a_group(t):
    return chain(t.add(1, 1), group(t.add(10), t.add(20)))


@shape()
def group_then_task(t):
    return group(t.add(1, 1), t.add(2, 2)) | t.total()


@shape()
def group_in_a_chain(t):
    return chain(t.add(1, 1), group(t.add(10), t.add(20)), t.total(), t.add(100))


@shape()
def group_then_group(t):
    return group(t.add(1, 1), t.add(2, 2)) | group(t.total(), t.echo())


@shape()
def group_then_group_then_task(t):
    return group(t.add(1, 1), t.add(2, 2)) | group(t.total(), t.total()) | t.echo()


@shape()
def group_of_groups_in_a_chain(t):
    return chain(t.add(1, 1), group(t.add(10), group(t.add(20), t.add(30))), t.echo())


@shape()
def chain_of_groups_and_tasks(t):
    return chain(t.add(1, 1), group(t.add(1), t.add(2)), t.total(), group(t.add(1), t.add(2)), t.total())


# -- chords -------------------------------------------------------------------------------------------


@shape()
def chord_(t):
    return chord([t.add(n, n) for n in range(4)], t.echo())


@shape()
def chord_of_one(t):
    return chord([t.add(1, 1)], t.echo())


@shape()
def chord_with_a_chain_as_body(t):
    return chord([t.add(1, 1), t.add(2, 2)], chain(t.total(), t.add(10), t.add(100)))


@shape()
def chord_with_a_group_as_body(t):
    return chord([t.add(1, 1), t.add(2, 2)], group(t.total(), t.echo()))


@shape()
def chord_with_a_chord_as_body(t):
    return chord([t.add(1, 1), t.add(2, 2)], chord([t.total(), t.echo()], t.echo()))


@shape()
def chord_with_a_body_that_ends_in_a_group(t):
    return chord([t.add(1, 1), t.add(2, 2)], chain(t.total(), group(t.add(1), t.add(2))))


@shape()
def chord_in_a_chain(t):
    return chain(t.add(1, 1), chord([t.add(10), t.add(20)], t.total()), t.add(100))


@shape()
def two_chords_in_a_chain(t):
    return chain(chord([t.add(1, 1), t.add(2, 2)], t.total()), chord([t.add(10), t.add(20)], t.total()))


@shape()
def chord_in_a_header(t):
    return chord([chord([t.add(1, 1), t.add(2, 2)], t.total()), t.add(3, 3)], t.echo())


@shape()
def chords_three_deep(t):
    inner = chord([t.add(1, 1), t.add(2, 2)], t.total())
    return chord([chord([inner, t.add(3, 3)], t.total()), t.add(4, 4)], t.echo())


@shape()
def chord_of_chains(t):
    return chord([chain(t.add(n, n), t.add(10)) for n in range(3)], t.echo())


@shape()
def chord_of_chains_with_chords(t):
    return chord([chain(t.add(1, 1), chord([t.add(10), t.add(20)], t.total()), t.add(100)), t.add(3, 3)], t.echo())


@shape()
def chord_of_chains_that_end_in_a_group(t):
    return chord([chain(t.add(1, 1), group(t.add(10), t.add(20))), t.add(3, 3)], t.total())


@shape()
def group_in_a_header(t):
    return chord([t.add(1, 1), group(t.add(2, 2), t.add(3, 3))], t.total())


@shape()
def groups_in_groups_in_a_header(t):
    return chord([group(t.add(1, 1), group(t.add(2, 2), group(t.add(3, 3), t.add(4, 4)))), t.add(5, 5)], t.total())


@shape()
def chain_with_a_group_in_a_header(t):
    return chord([chain(t.add(1, 1), group(t.add(1), t.add(2)), t.total()), t.add(3, 3)], t.echo())


@shape()
def group_of_chords(t):
    return group(chord([t.add(n, 1), t.add(n, 2)], t.total()) for n in range(2))


@shape()
def empty_header(t):
    return chord([], t.echo())


@shape()
def empty_group_in_a_chain(t):
    return chain(t.add(1, 1), group([]), t.add(10))


@shape()
def immutable_body(t):
    return chord([t.add(1, 1), t.add(2, 2)], t.add(5, 5).set(immutable=True))


@shape(countdown=1)
def chord_with_a_countdown(t):
    return chord([t.add(1, 1), t.add(2, 2)], t.echo())


@shape(countdown=1)
def chain_with_a_countdown(t):
    return chain(t.add(1, 1), t.add(10))


# -- map, starmap, chunks -----------------------------------------------------------------------------


@shape()
def map_(t):
    return proj.add.map([1, 2, 3])


@shape()
def starmap(t):
    return proj.add.starmap([(1, 2), (3, 4)])


@shape()
def chunks(t):
    return proj.add.chunks([(n, n) for n in range(5)], 2).group()


@shape()
def map_in_a_chain(t):
    return chain(proj.add.map([1, 2, 3]), t.total())


@shape()
def chunks_in_a_chord(t):
    return chord(proj.add.chunks([(n, n) for n in range(5)], 2).group(), t.echo())


# -- callbacks ----------------------------------------------------------------------------------------


@shape()
def link(t):
    return t.add(1, 2).set(link=t.told())


@shape()
def several_links(t):
    return t.add(1, 2).set(link=[t.told(), t.add(10), t.told().set(immutable=True)])


@shape()
def link_of_a_chain(t):
    return t.add(1, 2).set(link=chain(t.add(10), t.told()))


@shape()
def link_of_a_group(t):
    return t.add(1, 2).set(link=group(t.add(10), t.add(20)))


@shape()
def link_of_a_chord(t):
    return t.add(1, 2).set(link=chord([t.add(10), t.add(20)], t.told()))


@shape()
def link_on_a_chain(t):
    made = chain(t.add(1, 2), t.add(10))
    made.link(t.told())
    return made


@shape()
def link_on_a_chord(t):
    made = chord([t.add(1, 1), t.add(2, 2)], t.total())
    made.link(t.told())
    return made


@shape()
def link_in_a_header(t):
    return chord([t.add(1, 1).set(link=t.told()), t.add(2, 2)], t.total())


# -- failures, and who is told of them ----------------------------------------------------------------


@shape()
def errback_of_the_old_form(t):
    return t.breaks().set(link_error=t.told())


@shape("new")
def errback_of_the_new_form(t):
    return t.breaks().set(link_error=t.told_all())


@shape()
def errback_that_is_immutable(t):
    return t.breaks().set(link_error=t.told(7).set(immutable=True))


@shape()
def several_errbacks(t):
    return t.breaks().set(link_error=[t.told(), t.told_badly()])


@shape()
def errback_with_a_chain(t):
    return t.breaks().set(link_error=chain(t.told(), t.echo()))


@shape()
def errback_with_an_errback(t):
    return t.breaks().set(link_error=t.told_badly().set(link_error=t.told()))


@shape()
def errback_that_nobody_needs(t):
    return t.add(1, 2).set(link_error=t.told())


@shape()
def failure_first_in_a_chain(t):
    return chain(t.breaks(), t.add(10), t.add(100)).on_error(t.told())


@shape()
def failure_in_a_chain(t):
    return chain(t.add(1, 2), t.breaks(), t.add(10), t.add(100)).on_error(t.told())


@shape("new")
def failure_in_a_chain_new_form(t):
    return chain(t.add(1, 2), t.breaks(), t.add(10)).on_error(t.told_all())


@shape()
def failure_in_a_group(t):
    return group(t.add(1, 1), t.breaks())


@shape()
def failure_in_a_group_with_an_errback(t):
    return group(t.add(1, 1), t.breaks()).on_error(t.told())


@shape()
def failure_in_a_header(t):
    return chord([t.add(1, 1), t.breaks(), t.add(2, 2)], t.total())


@shape()
def failure_in_a_header_with_an_errback(t):
    return chord([t.add(1, 1), t.breaks(), t.add(2, 2)], t.total().on_error(t.told()))


@shape("new")
def failure_in_a_header_new_form(t):
    return chord([t.add(1, 1), t.breaks(), t.add(2, 2)], t.total().on_error(t.told_all()))


@shape()
def errback_on_a_chord(t):
    return chord([t.add(1, 1), t.breaks()], t.total()).on_error(t.told())


@shape()
def failure_in_a_body(t):
    return chord([t.add(1, 1), t.add(2, 2)], t.breaks().on_error(t.told()))


@shape()
def failure_in_a_body_that_is_a_chain(t):
    return chord([t.add(1, 1), t.add(2, 2)], chain(t.total(), t.breaks(), t.add(10)).on_error(t.told()))


@shape()
def failure_before_a_body_that_is_a_chain(t):
    return chord([t.add(1, 1), t.breaks()], chain(t.total(), t.add(10)).on_error(t.told()))


@shape()
def failure_before_a_body_that_is_a_group(t):
    return chord([t.add(1, 1), t.breaks()], group(t.total(), t.echo()))


@shape()
def failure_before_a_body_that_is_a_chord(t):
    return chord([t.add(1, 1), t.breaks()], chord([t.total(), t.echo()], t.echo()).on_error(t.told()))


@shape()
def failure_before_a_body_that_is_a_group_in_a_chain(t):
    return chain(group(t.add(1, 1), t.breaks()), group(t.total(), t.echo()), t.echo())


@shape()
def failure_before_a_chord_in_a_chain(t):
    return chain(t.breaks(), chord([t.add(10), t.add(20)], t.total()), t.add(100)).on_error(t.told())


@shape()
def failure_in_a_chord_in_a_chain(t):
    return chain(t.add(1, 1), chord([t.add(10), t.breaks()], t.total()), t.add(100))


@shape()
def failure_in_a_chord_in_a_header(t):
    return chord([chord([t.add(1, 1), t.breaks()], t.total()), t.add(3, 3)], t.echo().on_error(t.told()))


@shape()
def failure_in_the_body_of_a_chord_in_a_header(t):
    return chord([chord([t.add(1, 1), t.add(2, 2)], t.breaks()), t.add(3, 3)], t.echo().on_error(t.told()))


@shape()
def failure_first_in_a_chain_in_a_header(t):
    return chord([chain(t.breaks(), t.add(10), t.add(20)), t.add(3, 3)], t.echo().on_error(t.told()))


@shape()
def failure_last_in_a_chain_in_a_header(t):
    return chord([chain(t.add(1, 1), t.breaks()), t.add(3, 3)], t.echo().on_error(t.told()))


@shape()
def failure_in_a_group_in_a_header(t):
    return chord([t.add(1, 1), group(t.add(2, 2), t.breaks())], t.total().on_error(t.told()))


@shape()
def failure_in_a_group_in_a_chain(t):
    return chain(t.add(1, 1), group(t.add(10), t.breaks()), t.total(), t.add(100))


# -- options ------------------------------------------------------------------------------------------


@shape()
def ignored_members_of_a_group_in_a_chord(t):
    return chord([t.quiet(1), t.quiet(2)], t.echo())


@shape()
def ignored_member_that_fails(t):
    return chord([t.breaks().set(ignore_result=True), t.add(2, 2)], t.total().on_error(t.told()))


@shape()
def ignored_step(t):
    return chain(t.quiet(1), t.add(10))


@shape()
def retry_in_a_chain(t):
    return chain(t.flaky(1), t.add(10))


@shape()
def retry_in_a_header(t):
    return chord([t.flaky(1), t.flaky(2), t.add(3, 3)], t.echo())


@shape()
def last_retry_in_a_header(t):
    return chord([t.hopeless(1), t.add(3, 3)], t.echo().on_error(t.told()))


@shape()
def member_that_has_expired(t):
    return chord([t.add(1, 1).set(expires=-5), t.add(2, 2)], t.total().on_error(t.told()))


@shape()
def revoked_by_a_stamp(t):
    made = t.add(1, 1)
    made.stamp(order=REVOKED)
    return made


@shape()
def member_revoked_by_a_stamp(t):
    made = t.add(1, 1)
    made.stamp(order=REVOKED)
    return chord([made, t.add(2, 2)], t.total().on_error(t.told()))


class Visitor(StampingVisitor):
    """Stamps every task of a workflow."""

    def on_signature(self, sig, **headers):
        return {"customer": "acme", "stamped_headers": ["customer"]}


@shape("python")
def stamps_on_a_task(t):
    made = t.stamps()
    made.stamp(customer="acme", order=7)
    return made


@shape("python")
def stamps_on_a_chain(t):
    made = chain(t.stamps(), t.stamps(), t.stamps())
    made.stamp(visitor=Visitor())
    return made


@shape("python")
def stamps_on_a_chord(t):
    made = chord([t.stamps(), t.stamps()], t.stamps())
    made.stamp(visitor=Visitor())
    return made


@shape("python")
def stamps_on_a_group_in_a_chain(t):
    made = chain(t.add(1, 1), group(t.stamps(), t.stamps()))
    made.stamp(visitor=Visitor())
    return made


# -- replace, add_to_chord ----------------------------------------------------------------------------


def _replaced(what):
    def alone(t):
        return t.becomes(1, what)

    def in_a_chain(t):
        return chain(t.add(1, 1), t.becomes(what), t.echo())

    def in_a_header(t):
        return chord([t.becomes(1, what), t.add(3, 3)], t.echo())

    for make, where in ((alone, ""), (in_a_chain, "_in_a_chain"), (in_a_header, "_in_a_header")):
        make.__name__ = f"replaced_by_{what}{where}"
        shape("python")(make)


for _what in ("task", "chain", "group", "chord", "itself"):
    _replaced(_what)


@shape("python")
def replaced_body(t):
    return chord([t.add(1, 1), t.add(2, 2)], chain(t.total(), t.becomes("chain")))


@shape("python")
def replaced_with_a_link(t):
    return t.becomes(1, "chain").set(link=t.told())


@shape("python")
def replaced_by_a_failure(t):
    return chain(t.becomes(1, "failure"), t.add(10)).on_error(t.told())


@shape("python")
def replaced_by_a_failure_in_a_header(t):
    return chord([t.becomes(1, "failure"), t.add(3, 3)], t.echo().on_error(t.told()))


@shape("python")
def add_to_chord(t):
    return chord([t.joins(1), t.add(2, 2)], t.tally())


@shape("python")
def group_sent_by_a_task(t):
    return chain(t.sends(1), t.add(10))
