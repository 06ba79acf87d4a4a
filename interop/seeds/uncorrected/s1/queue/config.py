"""
Queue Configuration

Provides feature flags and configuration for queue system.
"""

import os
from typing import Optional
from functools import lru_cache

from dotenv import load_dotenv

load_dotenv()


class QueueConfig:
    """Queue configuration singleton."""

    def __init__(self):
        self._use_celery: Optional[bool] = None

    @property
    def use_celery(self) -> bool:
        """Check if Celery queue should be used."""
        if self._use_celery is None:
            env_value = os.getenv("USE_CELERY", "false").lower()
            self._use_celery = env_value in ("true", "1", "yes")
        return self._use_celery

    def set_use_celery(self, value: bool):
        """Override Celery usage (for testing)."""
        self._use_celery = value

    @property
    def redis_url(self) -> str:
        """Get Redis URL."""
        return os.getenv("REDIS_URL", "redis://localhost:6379/0")

    @property
    def worker_concurrency(self) -> int:
        """Get worker concurrency."""
        return int(os.getenv("CELERY_WORKER_CONCURRENCY", "4"))

    @property
    def task_time_limit(self) -> int:
        """Get task time limit in seconds."""
        return int(os.getenv("CELERY_TASK_TIME_LIMIT", "1800"))


@lru_cache()
def get_queue_config() -> QueueConfig:
    """Get cached queue configuration."""
    return QueueConfig()
