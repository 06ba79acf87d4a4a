"""Maintenance: queue system."""

from app import database
from app.celery_worker import celery_app


@celery_app.task
def health():
    """Whether the database answers."""
    return {"database": database.value("SELECT 'ok'")}


@celery_app.task(ignore_result=True)
def retention_cleanup(keep):
    """Only the newest runs are kept."""
    with database.connect() as connection:
        connection.execute("DELETE FROM runs WHERE rowid NOT IN "
                           "(SELECT rowid FROM runs ORDER BY rowid DESC LIMIT ?)", (keep,))
