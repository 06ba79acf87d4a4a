"""
Celery Task Definitions

Defines the Celery tasks that wrap the TaskExecutor.
"""

import logging
from typing import Dict, Any

from celery import Task

from .celery_app import celery_app
from .execution import TaskExecutor

logger = logging.getLogger(__name__)


class BaseTask(Task):
    """Base task with error handling and retries."""

    autoretry_for = (ConnectionError, TimeoutError)
    retry_backoff = True
    retry_backoff_max = 600
    retry_jitter = True
    max_retries = 3

    def on_failure(self, exc, task_id, args, kwargs, einfo):
        """Handle task failure."""
        logger.error(f"Task {task_id} failed: {exc}")

    def on_retry(self, exc, task_id, args, kwargs, einfo):
        """Handle task retry."""
        logger.warning(f"Task {task_id} retrying: {exc}")


@celery_app.task(
    bind=True,
    base=BaseTask,
    name="process_data_task",
    queue="default",
    time_limit=1800,
    soft_time_limit=1500
)
def process_data_task(
    self,
    task_id: str,
    user_id: int
) -> Dict[str, Any]:
    """
    Process a data analysis task.

    This is the main Celery task that replaces the threading approach.

    Args:
        task_id: UUID of the Agensium task
        user_id: ID of the user

    Returns:
        Result dict with status and details
    """
    def progress_callback(progress: int, agent: str = None):
        """Report progress to Celery."""
        self.update_state(
            state="PROCESSING",
            meta={
                "progress": progress,
                "current_agent": agent,
                "task_id": task_id
            }
        )

    executor = TaskExecutor(
        task_id=task_id,
        user_id=user_id,
        progress_callback=progress_callback
    )

    return executor.execute()


# Tool-specific tasks for dedicated queues
@celery_app.task(
    bind=True,
    base=BaseTask,
    name="process_profile_task",
    queue="profile",
    time_limit=1200,
    soft_time_limit=1000
)
def process_profile_task(self, task_id: str, user_id: int) -> Dict[str, Any]:
    """Process profile-my-data task."""
    return process_data_task(task_id, user_id)


@celery_app.task(
    bind=True,
    base=BaseTask,
    name="process_clean_task",
    queue="clean",
    time_limit=1800,
    soft_time_limit=1500
)
def process_clean_task(self, task_id: str, user_id: int) -> Dict[str, Any]:
    """Process clean-my-data task."""
    return process_data_task(task_id, user_id)


@celery_app.task(
    bind=True,
    base=BaseTask,
    name="process_master_task",
    queue="master",
    time_limit=2400,
    soft_time_limit=2100
)
def process_master_task(self, task_id: str, user_id: int) -> Dict[str, Any]:
    """Process master-my-data task."""
    return process_data_task(task_id, user_id)
