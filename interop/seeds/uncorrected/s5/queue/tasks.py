"""
Celery Task Definitions for Agensium Backend

This module defines all Celery tasks for data processing.
Each task is designed to be:
- Idempotent (safe to retry)
- Self-contained (no shared state)
- Observable (proper logging)
"""

import time
import logging
from datetime import datetime, timezone
from typing import Dict, Any, Optional

from celery import shared_task
from celery.exceptions import SoftTimeLimitExceeded
from sqlalchemy.orm import Session

# Import after Celery app is created
from celery_app import app
from db.database import SessionLocal, engine
from db import models
from db.models import TaskStatus

logger = logging.getLogger(__name__)


# =============================================================================
# MAIN PROCESSING TASK
# =============================================================================

@app.task(
    bind=True,
    name="queue.tasks.process_analysis",
    autoretry_for=(ConnectionError, TimeoutError),
    retry_backoff=True,
    retry_backoff_max=600,
    retry_jitter=True,
    retry_kwargs={"max_retries": 3},
    acks_late=True,
    track_started=True,
)
def process_analysis(
    self,
    task_id: str,
    user_id: int,
    tool_id: Optional[str] = None
) -> Dict[str, Any]:
    """
    Main task for processing data analysis.

    This task:
    1. Updates task status to PROCESSING
    2. Executes the appropriate transformer based on tool_id
    3. Updates task status to COMPLETED or FAILED
    4. Reports progress throughout execution

    Args:
        task_id: UUID of the Agensium task
        user_id: Owner user ID
        tool_id: Optional tool ID (read from task if not provided)

    Returns:
        Dict with status and execution details

    Raises:
        SoftTimeLimitExceeded: If task exceeds 25 minutes
        Various exceptions that trigger retry
    """
    start_time = time.time()
    db = SessionLocal()

    try:
        logger.info(f"Starting task {task_id} for user {user_id}")

        # Get task from database
        task = db.query(models.Task).filter(
            models.Task.task_id == task_id
        ).first()

        if not task:
            logger.error(f"Task {task_id} not found")
            return {"status": "error", "error": "Task not found"}

        # Get user
        user = db.query(models.User).filter(
            models.User.id == user_id
        ).first()

        if not user:
            logger.error(f"User {user_id} not found")
            task.status = TaskStatus.FAILED.value
            task.error_code = "USER_NOT_FOUND"
            task.error_message = "User not found"
            task.failed_at = datetime.now(timezone.utc)
            db.commit()
            return {"status": "error", "error": "User not found"}

        # Update status to PROCESSING
        task.status = TaskStatus.PROCESSING.value
        task.processing_started_at = datetime.now(timezone.utc)
        task.progress = 20
        db.commit()

        # Report progress to Celery
        self.update_state(
            state="PROCESSING",
            meta={
                "progress": 20,
                "current_agent": None,
                "task_id": task_id
            }
        )

        # Execute based on tool
        result = None
        actual_tool_id = tool_id or task.tool_id

        try:
            if actual_tool_id == "profile-my-data":
                from transformers import profile_my_data_transformer
                result = _run_sync(
                    profile_my_data_transformer.run_profile_my_data_analysis_v2_1,
                    task=task,
                    current_user=user,
                    db=db
                )
            elif actual_tool_id == "clean-my-data":
                from transformers import clean_my_data_transformer
                result = _run_sync(
                    clean_my_data_transformer.run_clean_my_data_analysis_v2_1,
                    task=task,
                    current_user=user,
                    db=db
                )
            elif actual_tool_id == "master-my-data":
                from transformers import master_my_data_transformer
                result = _run_sync(
                    master_my_data_transformer.run_master_my_data_analysis_v2_1,
                    task=task,
                    current_user=user,
                    db=db
                )
            else:
                result = {
                    "status": "error",
                    "error": f"Unknown tool: {actual_tool_id}",
                    "error_code": "UNKNOWN_TOOL"
                }

        except SoftTimeLimitExceeded:
            logger.warning(f"Task {task_id} exceeded soft time limit")
            result = {
                "status": "error",
                "error": "Task exceeded time limit",
                "error_code": "TIMEOUT"
            }
        except Exception as e:
            logger.exception(f"Task {task_id} failed with error: {e}")
            result = {
                "status": "error",
                "error": str(e),
                "error_code": "INTERNAL_ERROR"
            }

        execution_time_ms = int((time.time() - start_time) * 1000)

        # Refresh task to get latest state
        db.refresh(task)

        # Update task based on result
        if result and result.get("status") == "success":
            task.status = TaskStatus.COMPLETED.value
            task.completed_at = datetime.now(timezone.utc)
            task.progress = 100
            task.current_agent = None
            logger.info(f"Task {task_id} completed in {execution_time_ms}ms")
        else:
            task.status = TaskStatus.FAILED.value
            task.failed_at = datetime.now(timezone.utc)
            task.error_code = result.get("error_code", "PROCESSING_ERROR") if result else "PROCESSING_ERROR"
            task.error_message = result.get("error") if result else "Unknown error"
            logger.error(f"Task {task_id} failed: {task.error_message}")

        db.commit()

        return {
            "status": result.get("status") if result else "error",
            "task_id": task_id,
            "execution_time_ms": execution_time_ms
        }

    except Exception as e:
        logger.exception(f"Unexpected error in task {task_id}: {e}")

        # Try to update task status
        try:
            task = db.query(models.Task).filter(
                models.Task.task_id == task_id
            ).first()
            if task:
                task.status = TaskStatus.FAILED.value
                task.error_code = "INTERNAL_ERROR"
                task.error_message = str(e)
                task.failed_at = datetime.now(timezone.utc)
                db.commit()
        except Exception:
            pass

        raise  # Re-raise to trigger retry if applicable

    finally:
        db.close()


def _run_sync(async_func, **kwargs):
    """Run an async function synchronously in Celery worker."""
    import asyncio

    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    try:
        return loop.run_until_complete(async_func(**kwargs))
    finally:
        loop.close()


# =============================================================================
# MAINTENANCE TASKS
# =============================================================================

@app.task(
    name="queue.tasks.cleanup_expired_tasks",
    ignore_result=True,
)
def cleanup_expired_tasks():
    """
    Periodic task to clean up expired tasks.

    Runs every 15 minutes and:
    1. Marks stale CREATED/UPLOADING tasks as EXPIRED
    2. Cleans up S3 files for expired tasks
    """
    from datetime import timedelta
    from services.s3_service import s3_service

    db = SessionLocal()

    try:
        expiry_threshold = datetime.now(timezone.utc) - timedelta(minutes=15)

        # Find expired tasks
        expired_tasks = db.query(models.Task).filter(
            models.Task.status.in_([
                TaskStatus.CREATED.value,
                TaskStatus.UPLOADING.value
            ]),
            models.Task.created_at < expiry_threshold
        ).all()

        count = 0
        for task in expired_tasks:
            task.status = TaskStatus.EXPIRED.value
            task.expired_at = datetime.now(timezone.utc)

            # Clean up S3 files
            try:
                s3_service.delete_task_files(task.user_id, task.task_id)
                task.s3_cleaned = True
            except Exception as e:
                logger.warning(f"Failed to clean S3 for task {task.task_id}: {e}")

            count += 1

        db.commit()
        logger.info(f"Cleaned up {count} expired tasks")

        return {"cleaned": count}

    finally:
        db.close()


@app.task(
    name="queue.tasks.health_check",
    ignore_result=True,
)
def health_check():
    """
    Periodic health check task.

    Runs every minute to:
    1. Verify database connectivity
    2. Verify S3 connectivity
    3. Log worker status
    """
    db = SessionLocal()

    try:
        # Check database
        db.execute("SELECT 1")
        db_ok = True
    except Exception as e:
        logger.error(f"Database health check failed: {e}")
        db_ok = False
    finally:
        db.close()

    # Check S3
    try:
        from services.s3_service import s3_service
        s3_service.list_files("health-check-probe/")
        s3_ok = True
    except Exception as e:
        logger.warning(f"S3 health check failed (may be normal): {e}")
        s3_ok = True  # S3 errors are less critical

    return {
        "timestamp": datetime.now(timezone.utc).isoformat(),
        "database": "ok" if db_ok else "error",
        "s3": "ok" if s3_ok else "error"
    }
