"""Tasks for chains, groups, chords and stamps."""

from celery import chain, group

from .celery import app
from .outcomes import add


@app.task
def total(numbers):
    """The body of a chord."""
    return sum(numbers)


@app.task
def double(x):
    """One argument."""
    return 2 * x


@app.task
def breaks(*_args):
    """A step that fails."""
    raise ValueError("broken")


@app.task
def errback(request, exc, _traceback):
    """The new form: gets the failed request."""
    return [request.task, repr(exc)]


@app.task
def old_errback(task_id):
    """The old form: gets its id only."""
    return len(task_id)


@app.task(bind=True)
def becomes(self, what):
    """Is replaced by something else."""
    if what == "task":
        return self.replace(add.s(3, 4))
    if what == "chain":
        return self.replace(chain(add.s(3, 4), double.s()))
    return self.replace(group(add.s(1, 1), add.s(2, 2)))


@app.task(bind=True)
def stamped(self):
    """What it was stamped with."""
    return [sorted(self.request.stamped_headers or []), self.request.stamps]


@app.task(bind=True)
def fans_out(self, count):
    """Sends a group from inside; the parent knows its children."""
    made = group(add.s(n, n) for n in range(count)).apply_async()
    return [len(made.children), made.parent is None]
