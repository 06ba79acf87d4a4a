"""Chords whose member died with its process while it sent the body.

backends/redis.py:on_chord_part_return of 5.7 lets one process at a time send a body. One that dies keeps its
claim for up to half a minute, and a member that is counted meanwhile – which here is at once, not after a
visibility timeout – sends nothing. So the worker keeps the message of such a member and has it counted again
until the body is sent: when the worker dies as well, the next one does. Celery before 5.7 has no claims.
"""

from __future__ import annotations

from celery import states

#: A claim is looked at so often, in seconds: whoever holds it may be alive, and soon be done.
_LOOK_EVERY = 1.0
#: How long a chord that is over is remembered, in seconds; as Celery does.
_DONE_EXPIRES = 300
_DONE = b"done"


def count(task, request) -> None:
    """Counts the part of a member that has ended; sends the body when that is all and nobody has begun to."""
    backend = task.backend
    if _has_claims(backend) and _was_sent(backend, request):
        return
    meta = backend.get_task_meta(request.id, cache=False)
    known = meta["status"] in states.READY_STATES
    # Without a result it was counted already, and only how many there are is of interest.
    state, result = (meta["status"], meta["result"]) if known else (states.SUCCESS, None)
    backend.on_chord_part_return(request._context, state, result)


def look_again(task, request) -> float | None:
    """After how many seconds a member that was counted must be counted again; `None`: its part is done."""
    backend = task.backend
    if not request.chord or not request.group or not _has_claims(backend):
        return None
    claim, lasts, size = _claim(backend, request)
    if claim in (None, _DONE) or size is None:
        return None
    return min(max(lasts, 0) / 1000, _LOOK_EVERY)


def _has_claims(backend) -> bool:
    return hasattr(backend, "_chord_part_return_script")


def _claim(backend, request) -> tuple:
    """Who has begun to send the body, for how many milliseconds more, and of how many the chord is."""
    with backend.client.pipeline(transaction=False) as pipe:
        pipe.get(backend.get_key_for_group(request.group, ".c"))
        pipe.pttl(backend.get_key_for_group(request.group, ".c"))
        pipe.get(backend.get_key_for_group(request.group, ".s"))
        return tuple(pipe.execute())


def _was_sent(backend, request) -> bool:
    """Whether the body runs or has run, though whoever sent it died before it could say so."""
    claim, _, size = _claim(backend, request)
    body = (request.chord.get("options") or {}).get("task_id")
    if claim is not None or size is None or not body:
        return False
    if backend.get_task_meta(body, cache=False)["status"] == states.PENDING:
        return False
    with backend.client.pipeline() as pipe:
        for end in (".j", ".t", ".s", ".d"):
            pipe.delete(backend.get_key_for_group(request.group, end))
        pipe.set(backend.get_key_for_group(request.group, ".c"), _DONE, ex=_DONE_EXPIRES)
        pipe.execute()
    return True
