"""Celery settings of S1: the seed names this file (L75, L171) but does not show it.

The four queues are those of its expected banner (L195-198), the limits those of its .env.
"""

import os

from kombu import Exchange, Queue

task_queues = tuple(
    Queue(name, Exchange(name), routing_key=name) for name in ("profile", "clean", "master", "default")
)
task_default_queue = "default"
# T-35: nothing of the seed reads these three variables; here its settings do.
worker_concurrency = int(os.getenv("CELERY_WORKER_CONCURRENCY", "4"))
task_time_limit = int(os.getenv("CELERY_TASK_TIME_LIMIT", "1800"))
task_soft_time_limit = int(os.getenv("CELERY_TASK_SOFT_TIME_LIMIT", "1500"))
