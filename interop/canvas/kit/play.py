"""Sends shapes with this environment's Celery, waits, and prints how each has ended, as JSON.

    python -m kit.play send NODES [SHAPE …]    one object: name to the ids of its result, and what Python needs
    python -m kit.play collect FILE            reads such an object, waits, and prints the results
"""

import json
import os
import sys
import time

from celery.result import GroupResult, result_from_tuple

from .proj import app
from .shapes import REVOKED, SHAPES, Tasks

#: Who waits sees another result end within so many seconds, or gives up: Celery has shapes that never end.
PATIENCE = 15


def told(value):
    """A value as JSON; an exception by its type's name and arguments."""
    if isinstance(value, BaseException):
        return {"error": type(value).__name__, "args": [argument if isinstance(argument, str) else repr(argument)
                                                        for argument in value.args]}
    return value


def tree(result, depth=0):
    """A result and all before it, with their ids."""
    if result is None or depth > 20:
        return None
    if isinstance(result, GroupResult):
        return {"group": result.id, "members": [tree(member, depth + 1) for member in result.results],
                "before": tree(result.parent, depth + 1)}
    children = result.children if result.ready() else None
    return {"id": result.id, "state": result.state, "value": told(result.result),
            "children": [ids(child) for child in children or []],
            "before": tree(result.parent, depth + 1)}


def ids(result):
    """A child: its id, or those of a group's members."""
    if isinstance(result, GroupResult):
        return [ids(member) for member in result.results]
    return result.id


def ended(result):
    """What the caller gets."""
    try:
        return told(result.get(timeout=5, disable_sync_subtasks=False))
    except Exception as error:
        return told(error)


def send(nodes, names):
    headers = {"order": [REVOKED]}
    replies = app.control.broadcast("revoke_by_stamped_headers", arguments={"headers": headers, "terminate": False},
                                    reply=True, timeout=10, limit=nodes)
    assert len(replies or []) == nodes, f"{nodes} workers should have answered: {replies}"
    sent = {}
    for name in names or SHAPES:
        make, needs, options = SHAPES[name]
        try:
            result = make(Tasks(name)).apply_async(**options)
            sent[name] = {"result": result.as_tuple(), "needs": needs}
        except Exception as error:
            sent[name] = {"result": None, "needs": needs, "error": f"{type(error).__name__}: {error}"}
    return sent


def collect(sent):
    deadline = time.monotonic() + PATIENCE
    results = {name: result_from_tuple(one["result"], app=app) for name, one in sent.items() if one["result"]}
    waiting = dict(results)
    while waiting and time.monotonic() < deadline:
        still = {name: result for name, result in waiting.items() if not result.ready()}
        if len(still) < len(waiting):
            waiting, deadline = still, time.monotonic() + PATIENCE
        time.sleep(0.05)
    found = {}
    for name, one in sent.items():
        if name not in results:
            found[name] = {"outcome": one["error"], "tree": None}
        elif name in waiting:
            found[name] = {"outcome": "it does not end", "tree": tree(results[name])}
        else:
            found[name] = {"outcome": ended(results[name]), "tree": tree(results[name])}
    return found


if __name__ == "__main__":
    verb, argument, *rest = sys.argv[1:]
    made = send(int(argument), rest) if verb == "send" else collect(json.load(open(argument)))
    print(json.dumps(made), flush=True)
    os._exit(0)  # Celery 5.7 complains of results that are dropped while Python ends
