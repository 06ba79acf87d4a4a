"""Stand-in for the platform's database: SQLite, DATABASE_URL says which file."""

import contextlib
import os
import sqlite3

SCHEMA = """
CREATE TABLE IF NOT EXISTS jobs (
    job_id INTEGER PRIMARY KEY, source TEXT, seconds REAL, paused INTEGER DEFAULT 0);
CREATE TABLE IF NOT EXISTS runs (job_id INTEGER, status TEXT, rows INTEGER, error TEXT);
CREATE TABLE IF NOT EXISTS raw_items (hash TEXT PRIMARY KEY, source TEXT, value REAL);
CREATE TABLE IF NOT EXISTS facts (hash TEXT PRIMARY KEY, value REAL);
"""


@contextlib.contextmanager
def connect():
    path = os.getenv("DATABASE_URL", "sqlite:///collector.db").removeprefix("sqlite:///")
    connection = sqlite3.connect(path, timeout=30)
    try:
        with connection:
            yield connection
    finally:
        connection.close()


def create():
    with connect() as database:
        database.executescript(SCHEMA)


def value(query, *parameters):
    with connect() as database:
        return database.execute(query, parameters).fetchone()[0]
