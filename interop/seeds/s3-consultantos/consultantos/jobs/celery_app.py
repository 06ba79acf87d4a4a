"""The Celery app that the seed's commands name: `celery -A consultantos.jobs.celery_app worker`."""

import os

from celery import Celery
from dotenv import load_dotenv
from kombu import Queue

load_dotenv()

REDIS_URL = os.getenv("REDIS_URL", "redis://localhost:6379/0")

celery_app = Celery(
    "consultantos",
    broker=os.getenv("CELERY_BROKER_URL", REDIS_URL),
    backend=os.getenv("CELERY_RESULT_BACKEND", REDIS_URL),
    include=["consultantos.jobs.tasks"],
)

celery_app.conf.update(
    # Priority-based task execution, 4 levels (S3 L10). T-65: a number orders within a queue only,
    # and on Redis the other way round than on RabbitMQ, so each level is a queue.
    task_queues=(Queue("critical"), Queue("high"), Queue("normal"), Queue("low")),
    task_default_queue="normal",
    task_routes={
        "consultantos.jobs.tasks.send_alert_task": {"queue": "critical"},
        "consultantos.jobs.tasks.escalate_task": {"queue": "high"},
        "consultantos.jobs.tasks.cleanup_task": {"queue": "low"},
        "consultantos.jobs.tasks.dead_letter_task": {"queue": "dead_letter"},
    },
    task_acks_late=True,
    worker_prefetch_multiplier=1,
    task_track_started=True,
    beat_schedule={
        "cleanup": {"task": "consultantos.jobs.tasks.cleanup_task", "schedule": 3600.0},
    },
)
