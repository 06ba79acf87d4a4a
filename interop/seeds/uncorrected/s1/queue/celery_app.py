"""
Celery Application Configuration

This module creates and configures the Celery application
for background task processing.
"""

import os
from celery import Celery
from dotenv import load_dotenv

load_dotenv()

# Create Celery app
celery_app = Celery(
    "agensium",
    broker=os.getenv("CELERY_BROKER_URL", "redis://localhost:6379/0"),
    backend=os.getenv("CELERY_RESULT_BACKEND", "redis://localhost:6379/0"),
    include=["queue.tasks"]
)

# Load configuration
celery_app.config_from_object("queue.celery_config")

# Optional: Auto-discover tasks
# celery_app.autodiscover_tasks(['queue'])

if __name__ == "__main__":
    celery_app.start()
