"""The app: tasks with small results. `crates/celeriac/examples/canvas.rs` has the same names in Rust.

Each run of a task that was given a `tag`, the name of its shape, appends a line to the file `NOTES`.
"""

import json
import os
import time

from celery import Celery, chain, chord, group

app = Celery("kit.proj", broker=os.environ["URL"], backend=os.environ["URL"])
app.conf.update(worker_prefetch_multiplier=1, broker_connection_retry_on_startup=True, worker_hijack_root_logger=False,
                result_expires=3600)
#: A task takes so long, in seconds, so that one worker does not take them all.
PAUSE = float(os.environ.get("PAUSE", "0.005"))


class TaskFailed(Exception):
    """The name that an error of a Rust task has."""


def note(task, tag, *args):
    """Says that a task runs."""
    if tag is None:
        return
    time.sleep(PAUSE)
    request = task.request
    line = json.dumps({"tag": tag, "task": task.name.partition(".")[2], "args": list(args), "id": request.id,
                       "parent": request.parent_id, "root": request.root_id, "group": request.group,
                       "index": request.group_index, "retries": request.retries, "node": os.environ.get("NODE")})
    with open(os.environ["NOTES"], "ab", buffering=0) as notes:
        notes.write(line.encode() + b"\n")


def task(name, **options):
    """Registers a bound task under the name that it has in Rust too."""
    return app.task(name=f"canvas.{name}", bind=True, **options)


@task("add")
def add(self, x, y=0, *, tag=None):
    note(self, tag, x, y)
    return x + y


@task("quiet", ignore_result=True)
def quiet(self, x, *, tag=None):
    note(self, tag, x)
    return x


def summed(value):
    return sum(map(summed, value)) if isinstance(value, list) else value


@task("total")
def total(self, numbers, *, tag=None):
    note(self, tag, numbers)
    return summed(numbers)


@task("echo")
def echo(self, value=None, *, tag=None):
    note(self, tag, value)
    return value


@task("breaks")
def breaks(self, before=None, *, tag=None):
    note(self, tag, before)
    raise TaskFailed("broken")


@task("flaky", max_retries=1)
def flaky(self, x, *, tag=None):
    note(self, tag, x)
    if self.request.retries == 0:
        raise self.retry(countdown=0, exc=TaskFailed("not yet"))
    return x


@task("hopeless", max_retries=1)
def hopeless(self, x, *, tag=None):
    note(self, tag, x)
    raise self.retry(countdown=0, exc=TaskFailed("never"))


@task("told")
def told(self, value=None, *, tag=None):
    """A callback, or an errback of the old form, which gets an id."""
    note(self, tag, value)


@task("told_badly")
def told_badly(self, value, *, tag=None):
    """An errback that fails."""
    note(self, tag, value)
    raise TaskFailed("the errback is broken")


# What follows is there in Python only.


@app.task(name="canvas.told_all")
def told_all(request, exc, traceback, *, tag=None):
    """An errback of the new form; it is called where the task has failed."""
    line = json.dumps({"tag": tag, "task": "told_all", "args": [request.id, f"{type(exc).__name__}{exc.args}"],
                       "id": None, "parent": None, "root": None, "group": None, "index": None, "retries": 0,
                       "node": os.environ.get("NODE")})
    with open(os.environ["NOTES"], "ab", buffering=0) as notes:
        notes.write(line.encode() + b"\n")


@task("stamps")
def stamps(self, before=None, *, tag=None):
    note(self, tag, before)
    return [sorted(self.request.stamped_headers or []), self.request.stamps]


@task("becomes")
def becomes(self, before, what, *, tag=None):
    """Is replaced by a workflow over its first argument."""
    note(self, tag, before, what)

    def plus(n):
        return add.s(n, tag=tag)

    made = {
        "task": lambda: add.s(before, 1, tag=tag),
        "chain": lambda: chain(add.s(before, 1, tag=tag), plus(10)),
        "group": lambda: group(add.s(before, 1, tag=tag), add.s(before, 2, tag=tag)),
        "chord": lambda: chord([add.s(before, 1, tag=tag), add.s(before, 2, tag=tag)], total.s(tag=tag)),
        "failure": lambda: breaks.si(tag=tag),
        "itself": lambda: becomes.s(before, "task", tag=tag),
    }[what]()
    return self.replace(made)


@task("joins")
def joins(self, x, *, tag=None):
    """Adds a member to the chord that it belongs to."""
    note(self, tag, x)
    self.add_to_chord(add.s(x, 100, tag=tag))
    return x


@task("tally")
def tally(self, numbers, *, tag=None):
    """The body of a chord whose members have no order: one that is added has the index of who added it."""
    note(self, tag, sorted(numbers))
    return sum(numbers)


@task("sends")
def sends(self, x, *, tag=None):
    """Sends a group and does not wait."""
    note(self, tag, x)
    group(add.s(x, n, tag=tag) for n in range(2)).apply_async()
    return x
