"""Loading: queue etl."""

from app import database
from app.celery_worker import celery_app


@celery_app.task
def run_etl(collected=None):
    """Raw items become facts; those whose value is no number are rejected."""
    loaded = rejected = 0
    with database.connect() as connection:
        for key, value in connection.execute("SELECT hash, value FROM raw_items ORDER BY hash").fetchall():
            try:
                number = float(value)
            except ValueError:
                rejected += 1
                continue
            loaded += connection.execute("INSERT OR IGNORE INTO facts VALUES (?, ?)", (key, number)).rowcount
    return {"collected": collected, "loaded": loaded, "rejected": rejected}
