"""Collecting: queue collect."""

import hashlib

from app import database, sources
from app.celery_worker import celery_app


@celery_app.task(bind=True, max_retries=3, default_retry_delay=0.2)
def execute_collect_task(self, job_id):
    """Reads a job's source; what is there already is not taken twice."""
    source = database.value("SELECT source FROM jobs WHERE job_id = ?", job_id)
    try:
        items = sources.read(source)
    except ConnectionError as exc:
        if self.request.retries == self.max_retries:
            _note(job_id, "failed", 0, str(exc))
        raise self.retry(exc=exc) from exc
    new = 0
    with database.connect() as connection:
        for item in items:
            key = hashlib.sha256(repr(sorted(item.items())).encode()).hexdigest()
            new += connection.execute(
                "INSERT OR IGNORE INTO raw_items VALUES (?, ?, ?)", (key, source, item["value"])).rowcount
    _note(job_id, "succeeded", new, None)
    return {"job_id": job_id, "read": len(items), "new": new}


def _note(job_id, status, rows, error):
    with database.connect() as connection:
        connection.execute("INSERT INTO runs VALUES (?, ?, ?, ?)", (job_id, status, rows, error))
