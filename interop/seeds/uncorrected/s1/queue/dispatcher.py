"""
Task Dispatcher

Routes tasks to either threading or Celery based on configuration.
"""

import threading
import logging
from typing import Dict, Any

from .config import get_queue_config
from .execution import TaskExecutor
from .tasks import process_data_task, process_profile_task, process_clean_task, process_master_task

logger = logging.getLogger(__name__)


def dispatch_task(
    task_id: str,
    user_id: int,
    tool_id: str = "default"
) -> Dict[str, Any]:
    """
    Dispatch a task to the appropriate execution system.

    Args:
        task_id: UUID of the task
        user_id: ID of the user
        tool_id: Tool ID for queue routing

    Returns:
        Dict with dispatch information
    """
    config = get_queue_config()

    if config.use_celery:
        return _dispatch_celery(task_id, user_id, tool_id)
    else:
        return _dispatch_thread(task_id, user_id)


def _dispatch_celery(
    task_id: str,
    user_id: int,
    tool_id: str
) -> Dict[str, Any]:
    """Dispatch to Celery queue."""
    logger.info(f"Dispatching task {task_id} to Celery queue")

    # Route to tool-specific queue
    task_map = {
        "profile-my-data": process_profile_task,
        "clean-my-data": process_clean_task,
        "master-my-data": process_master_task,
    }

    task_func = task_map.get(tool_id, process_data_task)

    # Dispatch to Celery
    result = task_func.delay(task_id, user_id)

    return {
        "dispatch_method": "celery",
        "celery_task_id": result.id,
        "task_id": task_id,
        "queue": task_func.queue or "default"
    }


def _dispatch_thread(task_id: str, user_id: int) -> Dict[str, Any]:
    """Dispatch to background thread (current approach)."""
    logger.info(f"Dispatching task {task_id} to background thread")

    def execute_in_thread():
        executor = TaskExecutor(task_id, user_id)
        executor.execute()

    thread = threading.Thread(
        target=execute_in_thread,
        daemon=True
    )
    thread.start()

    return {
        "dispatch_method": "thread",
        "task_id": task_id
    }
