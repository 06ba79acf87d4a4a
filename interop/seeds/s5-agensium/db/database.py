"""Stand-in for the backend's MySQL: one SQLite file, DATABASE_URL says which."""

import os
import sqlite3

from sqlalchemy import create_engine, event
from sqlalchemy.orm import Session, declarative_base, sessionmaker
from sqlalchemy.pool import NullPool

from services import faults

engine = create_engine(
    os.getenv("DATABASE_URL", "sqlite:///agensium.db"),
    connect_args={"timeout": 30},
    poolclass=NullPool,  # a forked child must not use its parent's connection
)
Base = declarative_base()


@event.listens_for(engine, "connect")
def _use_wal(connection: sqlite3.Connection, _record):
    connection.execute("PRAGMA journal_mode=WAL")


class FaultySession(Session):
    """Raises the ConnectionError of a lost server as often as a scene asked for."""

    def refresh(self, *args, **kwargs):
        faults.strike("database-reset", ConnectionError("database went away"))
        return super().refresh(*args, **kwargs)

    def execute(self, *args, **kwargs):
        faults.strike("database-down", ConnectionError("database is down"))
        return super().execute(*args, **kwargs)


SessionLocal = sessionmaker(bind=engine, class_=FaultySession)
