"""The Celery app behind the seed's `celery_app.control.inspect()` (S2 L151)."""

import os

from celery import Celery
from kombu import Queue

celery_app = Celery(
    "evaluation",
    broker=os.getenv("CELERY_BROKER_URL", "redis://localhost:6379/0"),
    backend=os.getenv("CELERY_RESULT_BACKEND", "redis://localhost:6379/0"),
    include=["evaluation.tasks"],
)

celery_app.conf.update(
    task_queues=(Queue("evaluation"),),
    task_default_queue="evaluation",
    # "Task acknowledgment required" (S2 L192)
    task_acks_late=True,
    worker_prefetch_multiplier=1,
    # "Priority queues" (S2 L168). T-65: on Redis 0 comes first.
    broker_transport_options={"queue_order_strategy": "priority"},
    task_send_sent_event=True,
    worker_send_task_events=True,
)
