"""The API's start (S4 L43-52), without HTTP."""

import os

USE_CELERY = os.getenv("USE_CELERY", "false").lower() == "true"
if not USE_CELERY:
    from app.core import scheduler


def startup():
    """The scheduler only starts when not using Celery mode."""
    if not USE_CELERY:
        scheduler.scheduler.start()
