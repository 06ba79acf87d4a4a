"""`submit_evaluation_to_celery`, which the seed calls (S2 L15, L51) and does not show."""

from . import storage
from .tasks import evaluate_code


def submit_evaluation_to_celery(eval_id, code, language, **options):
    """Queues an evaluation; gives the id of its task."""
    storage.write("INSERT OR REPLACE INTO evaluations (eval_id, language, queue_system) "
                  "VALUES (?, ?, 'celery')", eval_id, language)
    result = evaluate_code.apply_async(args=[eval_id, code, language], **options)
    storage.write("UPDATE evaluations SET celery_task_id = ? WHERE eval_id = ?", result.id, eval_id)
    return result.id
