"""docs/reference/canvas.md: which fleet was like Celery, and where Celery is not like itself."""

TEXT = """# Workflows on mixed fleets

Written by `interop/canvas/run.py --page`, which sends {shapes} shapes of canvas (`interop/canvas/kit/shapes.py`) to fleets
whose workers share one queue. A shape is *as Celery's* when the value or error of its caller, the states, values and
children of every result on the way, and every run (task, arguments, retry, place in its group, parent, root) are those of
a stock Celery that the fleet has the version of. Native tasks are the same tasks in Rust; `children` are Python tasks
under celeriac. Crossings are runs whose sender ran on another worker.

## Fleets

| fleet | sent from | shapes | as Celery's | different, see below | other | runs of each worker | crossings | s |
|---|---|---|---|---|---|---|---|---|
{fleets}

A shape that a Celery in the fleet leaves waiting for ever is not sent to a fleet of several workers: who runs the step is
chance. The builders of the Rust library have 33 of the shapes; a Rust caller has the id of the last result only.

## What differs, and why

A reason that begins with *chance* holds in some runs only.

| fleet | shape | what | reason |
|---|---|---|---|
{intended}

## Where Celery differs from itself

Stock workers alone; `5.7 from 5.4` is a worker of 5.7 and a sender of 5.4. Python children do what their version does.

| shape | what its caller gets |
|---|---|
{versions}

Only the parent of a body, or values on the way, differ in: {small}.
"""


def cell(text):
    return str(text).replace("|", "\\|")


def outcomes(values):
    return "; ".join(f"`{cell(value)}`: {', '.join(lanes)}" for value, lanes in values)


def write(path, table, rows, expected):
    """Writes the page."""
    differ = {name for name, one in expected.items() if len(one["outcome"]) > 1}
    small = [name for name, one in expected.items() if name not in differ and any(len(values) > 1 for values in one.values())]
    hangs = {name for name, one in expected.items() if any(value == '"it does not end"' for value, _ in one["outcome"])}
    lines = [f"| {name} | {outcomes(expected[name]['outcome'])} |" for name in expected if name in differ | hangs]
    path.write_text(TEXT.format(
        shapes=len(expected),
        fleets="\n".join("| " + " | ".join(map(cell, row)) + " |" for row in table),
        intended="\n".join(f"| `{cell(row['fleet'])}` | `{cell(row['shape'])}` | {row['aspect'].replace('*', 'all')} | "
                           f"{cell(row['reason'])} |" for row in rows),
        versions="\n".join(lines).replace('"it does not end"', "it never ends"),
        small=", ".join(small) or "none"))
