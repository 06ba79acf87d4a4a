"""The Celery app that the seed's commands name: `celery -A app.celery_worker worker` (S4 L54-69).

    celery -A app.celery_worker worker --loglevel=info
    celery -A app.celery_worker beat --loglevel=info \\
        --scheduler=app.core.celery_beat_scheduler:RedisBeatScheduler
"""

import os

from celery import Celery
from kombu import Queue

celery_app = Celery(
    "collector",
    broker=os.getenv("CELERY_BROKER_URL", "redis://localhost:6379/0"),
    backend=os.getenv("CELERY_RESULT_BACKEND", "redis://localhost:6379/0"),
    include=[
        "app.tasks.collect_tasks",
        "app.tasks.report_tasks",
        "app.tasks.etl_tasks",
        "app.tasks.system_tasks",
    ],
)

celery_app.conf.update(
    # T-37: without -Q a worker consumes declared queues only; the seed shows routes to these four.
    task_queues=tuple(Queue(name) for name in ("collect", "report", "etl", "system")),
    task_default_queue="system",
    task_routes={
        "app.tasks.collect_tasks.*": {"queue": "collect"},
        "app.tasks.report_tasks.*": {"queue": "report"},
        "app.tasks.etl_tasks.*": {"queue": "etl"},
        "app.tasks.system_tasks.*": {"queue": "system"},
    },
    task_track_started=True,
    result_extended=True,
)
