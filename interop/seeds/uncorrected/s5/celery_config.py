"""
Celery Configuration for Agensium Backend

This configuration is optimized for data processing tasks with the following
characteristics:
- Long-running tasks (up to 30 minutes)
- Memory-intensive operations (data analysis)
- Need for reliable execution with retries
"""

import os
from dotenv import load_dotenv

load_dotenv()

# =============================================================================
# BROKER & BACKEND CONFIGURATION
# =============================================================================

# Redis as message broker
broker_url = os.getenv("CELERY_BROKER_URL", "redis://localhost:6379/0")

# Redis as result backend
result_backend = os.getenv("CELERY_RESULT_BACKEND", "redis://localhost:6379/1")

# =============================================================================
# SERIALIZATION
# =============================================================================

# Use JSON for human-readable messages
task_serializer = "json"
result_serializer = "json"
accept_content = ["json"]

# Ensure timezone consistency
timezone = "UTC"
enable_utc = True

# =============================================================================
# TASK EXECUTION SETTINGS
# =============================================================================

# Acknowledge task only after completion (for reliability)
task_acks_late = True

# Re-queue task if worker is killed mid-execution
task_reject_on_worker_lost = True

# Hard time limit (kills task after this)
task_time_limit = 1800  # 30 minutes

# Soft time limit (raises SoftTimeLimitExceeded exception)
task_soft_time_limit = 1500  # 25 minutes

# Track task state changes
task_track_started = True

# Ignore result by default (enable per-task if needed)
task_ignore_result = False

# =============================================================================
# RESULT SETTINGS
# =============================================================================

# Results expire after 24 hours
result_expires = 86400

# Store extended task metadata
result_extended = True

# =============================================================================
# WORKER SETTINGS
# =============================================================================

# Number of concurrent workers per process
# For CPU-bound tasks (data analysis), set to number of cores
worker_concurrency = int(os.getenv("CELERY_CONCURRENCY", 4))

# Prefetch only 1 task at a time (fair distribution)
worker_prefetch_multiplier = 1

# Maximum tasks per worker before restart (prevent memory leaks)
worker_max_tasks_per_child = 50

# Log level
worker_log_format = "[%(asctime)s: %(levelname)s/%(processName)s] %(message)s"
worker_task_log_format = "[%(asctime)s: %(levelname)s/%(processName)s][%(task_name)s(%(task_id)s)] %(message)s"

# =============================================================================
# QUEUE CONFIGURATION
# =============================================================================

# Define task queues
task_queues = {
    "default": {
        "exchange": "default",
        "routing_key": "default",
    },
    "high_priority": {
        "exchange": "high_priority",
        "routing_key": "high_priority",
    },
    "low_priority": {
        "exchange": "low_priority",
        "routing_key": "low_priority",
    },
}

# Default queue
task_default_queue = "default"
task_default_exchange = "default"
task_default_routing_key = "default"

# =============================================================================
# RETRY SETTINGS
# =============================================================================

# Default retry delay (can be overridden per task)
task_default_retry_delay = 60  # 1 minute

# Enable retry backoff
task_retry_backoff = True
task_retry_backoff_max = 600  # Max 10 minutes between retries
task_retry_jitter = True  # Add randomness to prevent thundering herd

# =============================================================================
# BEAT SCHEDULER (for periodic tasks)
# =============================================================================

# Beat schedule - add periodic tasks here
beat_schedule = {
    "cleanup-expired-tasks": {
        "task": "queue.tasks.cleanup_expired_tasks",
        "schedule": 900.0,  # Every 15 minutes
    },
    "health-check": {
        "task": "queue.tasks.health_check",
        "schedule": 60.0,  # Every minute
    },
}

# =============================================================================
# SECURITY SETTINGS (for production)
# =============================================================================

# Enable SSL for Redis in production
# broker_use_ssl = {
#     'ssl_cert_reqs': ssl.CERT_REQUIRED,
#     'ssl_ca_certs': '/path/to/ca.pem',
# }

# =============================================================================
# MONITORING
# =============================================================================

# Enable sending task-sent events for Flower
worker_send_task_events = True
task_send_sent_event = True
