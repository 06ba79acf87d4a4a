"""
Task Execution Logic

Contains the core execution logic extracted from task_routes.py,
usable by both threading and Celery approaches.
"""

import logging
from datetime import datetime, timezone
from typing import Dict, Any, Optional

from sqlalchemy.orm import Session

from db.database import SessionLocal
from db import models
from db.models import TaskStatus
from services.s3_service import s3_service
from transformers import (
    profile_my_data_transformer,
    clean_my_data_transformer,
    master_my_data_transformer
)

logger = logging.getLogger(__name__)


class TaskExecutor:
    """
    Encapsulates task execution logic.

    Used by both:
    - Threading approach (current)
    - Celery workers (migration target)
    """

    def __init__(
        self,
        task_id: str,
        user_id: int,
        progress_callback: Optional[callable] = None
    ):
        """
        Initialize executor.

        Args:
            task_id: UUID of the task
            user_id: ID of the user
            progress_callback: Optional callback for progress updates
                               Signature: (progress: int, agent: str) -> None
        """
        self.task_id = task_id
        self.user_id = user_id
        self.progress_callback = progress_callback
        self.db: Optional[Session] = None
        self.task: Optional[models.Task] = None
        self.user: Optional[models.User] = None

    def execute(self) -> Dict[str, Any]:
        """
        Execute the task.

        Returns:
            Result dict with status and details
        """
        try:
            self.db = SessionLocal()

            # Load entities
            if not self._load_entities():
                return {"status": "error", "error": "Entity not found"}

            # Update to PROCESSING
            self._update_status(TaskStatus.PROCESSING, progress=15)

            # Execute based on tool
            tool_id = self.task.tool_id

            if tool_id == "profile-my-data":
                result = self._execute_profile()
            elif tool_id == "clean-my-data":
                result = self._execute_clean()
            elif tool_id == "master-my-data":
                result = self._execute_master()
            else:
                result = {"status": "error", "error": f"Unknown tool: {tool_id}"}

            if result.get("status") == "error":
                self._update_status(
                    TaskStatus.FAILED,
                    error_code=result.get("error_code", "PROCESSING_ERROR"),
                    error_message=result.get("error")
                )
            else:
                self._update_status(TaskStatus.COMPLETED, progress=100)

            return result

        except Exception as e:
            logger.exception(f"Task execution error: {e}")
            self._update_status(
                TaskStatus.FAILED,
                error_code="INTERNAL_ERROR",
                error_message=str(e)
            )
            return {"status": "error", "error": str(e)}

        finally:
            if self.db:
                self.db.close()

    def _load_entities(self) -> bool:
        """Load task and user from database."""
        self.task = self.db.query(models.Task).filter(
            models.Task.task_id == self.task_id
        ).first()

        self.user = self.db.query(models.User).filter(
            models.User.id == self.user_id
        ).first()

        return self.task is not None and self.user is not None

    def _update_status(
        self,
        status: TaskStatus,
        progress: Optional[int] = None,
        current_agent: Optional[str] = None,
        error_code: Optional[str] = None,
        error_message: Optional[str] = None
    ):
        """Update task status."""
        if not self.task:
            return

        self.task.status = status.value

        if progress is not None:
            self.task.progress = progress

        if current_agent is not None:
            self.task.current_agent = current_agent

        if error_code is not None:
            self.task.error_code = error_code

        if error_message is not None:
            self.task.error_message = error_message

        now = datetime.now(timezone.utc)
        if status == TaskStatus.PROCESSING:
            self.task.processing_started_at = now
        elif status == TaskStatus.COMPLETED:
            self.task.completed_at = now
        elif status == TaskStatus.FAILED:
            self.task.failed_at = now

        self.db.commit()

        # Call progress callback if provided
        if self.progress_callback and progress is not None:
            self.progress_callback(progress, current_agent)

    def _execute_profile(self) -> Dict[str, Any]:
        """Execute profile analysis."""
        # Existing logic from _execute_task_background
        # ... (extract from task_routes.py)
        return profile_my_data_transformer.run_analysis_v2_1(
            self.db,
            self.user.id,
            self.task.task_id,
            s3_service,
            lambda p, a: self._update_status(TaskStatus.PROCESSING, p, a)
        )

    def _execute_clean(self) -> Dict[str, Any]:
        """Execute clean analysis."""
        return clean_my_data_transformer.run_analysis_v2_1(
            self.db,
            self.user.id,
            self.task.task_id,
            s3_service,
            lambda p, a: self._update_status(TaskStatus.PROCESSING, p, a)
        )

    def _execute_master(self) -> Dict[str, Any]:
        """Execute master analysis."""
        return master_my_data_transformer.run_analysis_v2_1(
            self.db,
            self.user.id,
            self.task.task_id,
            s3_service,
            lambda p, a: self._update_status(TaskStatus.PROCESSING, p, a)
        )
