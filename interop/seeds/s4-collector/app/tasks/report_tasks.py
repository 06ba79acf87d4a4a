"""Reporting: queue report."""

from app import database
from app.celery_worker import celery_app


@celery_app.task
def daily_report(loaded=None):
    """How many facts there are, and their sum."""
    with database.connect() as connection:
        count, total = connection.execute("SELECT COUNT(*), TOTAL(value) FROM facts").fetchone()
    return {"loaded": loaded, "facts": count, "total": total}
