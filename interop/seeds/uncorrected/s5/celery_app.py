"""
Celery Application for Agensium Backend

This module initializes the Celery application and configures it to
auto-discover tasks from the queue module.

Usage:
    # Start worker
    celery -A celery_app worker --loglevel=info

    # Start beat scheduler
    celery -A celery_app beat --loglevel=info

    # Start Flower monitoring
    celery -A celery_app flower --port=5555
"""

import os
import sys
from celery import Celery
from dotenv import load_dotenv

# Load environment variables
load_dotenv()

# Add project root to path
sys.path.append(os.path.dirname(os.path.abspath(__file__)))

# Create Celery app
app = Celery("agensium")

# Load configuration from celery_config.py
app.config_from_object("celery_config")

# Auto-discover tasks in these modules
app.autodiscover_tasks([
    "queue",        # Main task module
    "queue.tasks",  # Task definitions
])


# =============================================================================
# OPTIONAL: Configure task error handling
# =============================================================================

@app.task(bind=True)
def debug_task(self):
    """Debug task for testing Celery connectivity."""
    print(f"Request: {self.request!r}")
    return {"status": "ok", "task_id": self.request.id}


# =============================================================================
# STARTUP HOOKS
# =============================================================================

@app.on_after_configure.connect
def setup_periodic_tasks(sender, **kwargs):
    """Set up periodic tasks after configuration."""
    print("✓ Celery periodic tasks configured")


@app.on_after_finalize.connect
def setup_direct_queue(sender, **kwargs):
    """Set up direct queue after finalization."""
    print("✓ Celery queues finalized")


if __name__ == "__main__":
    app.start()
