"""The gateway's snippets of S2, joined: selection, failover, force, metrics (L12-18, L48-58, L72-145)."""

import logging
import os
import random

from prometheus_client import Counter, Histogram

from evaluation.legacy import legacy_queue
from evaluation.submit import submit_evaluation_to_celery

logger = logging.getLogger(__name__)

CELERY_ENABLED = os.getenv("CELERY_ENABLED", "true") == "true"
# T-09: a value of the environment is a string, and no number is smaller than a string.
CELERY_PERCENTAGE = float(os.getenv("CELERY_PERCENTAGE", "0.1"))
FORCE_LEGACY_QUEUE = os.getenv('FORCE_LEGACY_QUEUE', 'false') == 'true'

# Prometheus metrics
# T-08: each needs a text that says what it counts.
celery_tasks_submitted = Counter('celery_tasks_submitted_total', "Evaluations sent to Celery")
legacy_tasks_submitted = Counter('legacy_tasks_submitted_total', "Evaluations sent to the legacy queue")
queue_selection_duration = Histogram('queue_selection_duration_seconds', "Time to choose a queue")


async def submit_to_legacy_queue(eval_id, code, language):
    # T-52: the seed's fallback drops the language.
    legacy_tasks_submitted.inc()
    return legacy_queue.submit(eval_id, code, language)


class EvaluationSubmitter:
    def __init__(self):
        self.celery_enabled = CELERY_ENABLED
        self.celery_percentage = float(CELERY_PERCENTAGE)
        self.force_legacy_queue = FORCE_LEGACY_QUEUE

    async def submit_evaluation(self, eval_id, code, language):
        if self.force_legacy_queue:
            # Override all Celery logic
            # T-10: `return await` stood outside of a function.
            return await self._submit_to_legacy(eval_id, code, language)

        # Decision logic for queue selection
        with queue_selection_duration.time():
            use_celery = (
                self.celery_enabled and
                random.random() < self.celery_percentage
            )

        if use_celery:
            return await self._submit_to_celery(eval_id, code, language)
        else:
            return await self._submit_to_legacy(eval_id, code, language)

    async def _submit_to_celery(self, eval_id, code, language):
        # Failover implementation
        try:
            task_id = submit_evaluation_to_celery(eval_id, code, language)
            if not task_id:
                raise Exception("Celery submission failed")
            celery_tasks_submitted.inc()
            return task_id
        except Exception as e:
            logger.warning(f"Celery failed, falling back: {e}")
            # Fallback to legacy queue
            await submit_to_legacy_queue(eval_id, code, language)

    async def _submit_to_legacy(self, eval_id, code, language):
        return await submit_to_legacy_queue(eval_id, code, language)
