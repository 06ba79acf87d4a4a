"""
Queue module for Celery tasks.

This module contains all task definitions for the Agensium backend.
Tasks are automatically discovered by Celery.
"""

from .tasks import process_analysis, cleanup_expired_tasks, health_check

__all__ = [
    "process_analysis",
    "cleanup_expired_tasks",
    "health_check",
]
