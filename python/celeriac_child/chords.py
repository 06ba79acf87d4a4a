"""Chords whose member died with its child while the body was to be sent.

backends/redis.py:on_chord_part_return of 5.7 lets one process at a time send a body. One that dies keeps its
claim for some seconds, and a member that is counted meanwhile – which here is at once, not after a visibility
timeout – sends nothing. So it is counted once more when the claim has lapsed; for a chord whose body was sent
that changes nothing.
"""

from __future__ import annotations

import threading

from celery import states

from . import logs

#: Beyond the end of a claim.
_MARGIN = 1.0


def count(task, request, result) -> None:
    """Counts the part of a member that has succeeded, whose child died before or while it did that."""
    task.backend.on_chord_part_return(request._context, states.SUCCESS, result)
    count_again(task, request)


def count_again(task, request) -> None:
    """Counts it once more, when nobody can have a claim any more."""
    if not hasattr(task.backend, "_chord_part_return_script"):
        return
    join = request.app.conf.result_chord_join_timeout or 5.0
    timer = threading.Timer(max(5, int(join * 2)) + _MARGIN, _again, (task, request))
    timer.daemon = True
    timer.start()


def _again(task, request) -> None:
    try:
        # Each thread has a backend of its own.
        backend = task.backend
        meta = backend.get_task_meta(request.id, cache=False)
        if meta["status"] == states.SUCCESS:
            backend.on_chord_part_return(request._context, states.SUCCESS, meta["result"])
    except Exception as error:
        logs.error("Cannot count the part of %s in its chord: %r", request.id, error, exc_info=True)
