"""A Django project, as Celery's documentation sets it up."""

from .celery import app as celery_app

__all__ = ("celery_app",)
