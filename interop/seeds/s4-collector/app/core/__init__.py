"""Schedulers: the old one and Celery's."""
