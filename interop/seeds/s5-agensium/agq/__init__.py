"""
Queue module for Celery tasks.

This module contains all task definitions for the Agensium backend.
Tasks are automatically discovered by Celery.
"""

# T-01: the package was called `queue`, as the standard library's; task names stay `queue.tasks.*`.
from .tasks import process_analysis, cleanup_expired_tasks, health_check

__all__ = [
    "process_analysis",
    "cleanup_expired_tasks",
    "health_check",
]
