"""Stand-in for the evaluations' database: SQLite, with the columns that S2 adds (L111-115)."""

import contextlib
import os
import sqlite3

SCHEMA = """
CREATE TABLE IF NOT EXISTS evaluations (eval_id TEXT PRIMARY KEY, language TEXT, verdict TEXT);
ALTER TABLE evaluations ADD COLUMN celery_task_id VARCHAR(255);
ALTER TABLE evaluations ADD COLUMN retry_count INTEGER DEFAULT 0;
ALTER TABLE evaluations ADD COLUMN queue_system VARCHAR(20); -- 'legacy' or 'celery'
CREATE TABLE legacy_tasks (eval_id TEXT, code TEXT, language TEXT);
CREATE TABLE runs (eval_id TEXT);
"""


@contextlib.contextmanager
def connect():
    path = os.getenv("DATABASE_URL", "sqlite:///evaluations.db").removeprefix("sqlite:///")
    connection = sqlite3.connect(path, timeout=30)
    try:
        with connection:
            yield connection
    finally:
        connection.close()


def create():
    with connect() as database:
        database.executescript(SCHEMA)


def write(query, *parameters):
    with connect() as database:
        database.execute(query, parameters)


def read(query, *parameters):
    with connect() as database:
        return database.execute(query, parameters).fetchall()
