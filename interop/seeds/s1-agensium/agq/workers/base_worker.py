"""The worker program of one tool's queue: the seed names this file (L79) but does not show it."""

from ..celery_app import celery_app


def start(queue):
    """Runs Celery's worker for one queue, in this process."""
    celery_app.worker_main(["worker", "--loglevel=info", "-Q", queue])
