"""Script to migrate Celery tasks back to legacy (S2 L147-156)."""

from .celery_app import celery_app
from .legacy import legacy_queue


def recover(timeout=1.0, limit=None):
    """Gives what workers run or hold back to the legacy queue."""
    inspect = celery_app.control.inspect(timeout=timeout, limit=limit)
    # T-54: the answers are lists by worker, not tasks; and only running ones were looked at.
    recovered = []
    for answers in (inspect.active(), inspect.reserved()):
        for tasks in (answers or {}).values():
            for task in tasks:
                # Extract evaluation ID
                eval_id = task['args'][0]
                # T-54: a task that still runs would run twice.
                celery_app.control.revoke(task['id'], terminate=True)
                # Resubmit to legacy queue
                legacy_queue.submit(eval_id, task['args'][1], task['args'][2])
                recovered.append(eval_id)
    return recovered
