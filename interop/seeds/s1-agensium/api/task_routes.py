"""The seed's routes (S1 L709-714, L740-755) as plain functions, stand-in for the HTTP service."""

import logging
import uuid
from datetime import datetime, timezone

from agq.config import get_queue_config  # T-01: was queue.config
from agq.dispatcher import dispatch_task  # T-01: was queue.dispatcher
from db import models
from db.database import SessionLocal
from db.models import TaskStatus

logger = logging.getLogger(__name__)


def create_task(user_id, tool_id):
    config = get_queue_config()

    # Set initial status based on dispatch method
    initial_status = (
        TaskStatus.QUEUED if config.use_celery
        else TaskStatus.CREATED
    )

    task_id = str(uuid.uuid4())
    new_task = models.Task(
        task_id=task_id,
        user_id=user_id,
        tool_id=tool_id,
        status=initial_status.value,
        created_at=datetime.now(timezone.utc),
    )
    with SessionLocal() as db:
        db.add(new_task)
        db.commit()
    return task_id


def trigger_processing(task_id, user_id):
    with SessionLocal() as db:
        task = db.get(models.Task, task_id)
        dispatch_result = dispatch_task(
            task_id=task_id,
            user_id=user_id,
            tool_id=task.tool_id
        )
        logger.info(f"Task dispatched: {dispatch_result}")
        return dispatch_result
