"""Stand-in for the backend's models: the columns that the seed's code names."""

import enum

from sqlalchemy import Boolean, Column, DateTime, Integer, String

from .database import Base


class TaskStatus(enum.Enum):
    CREATED = "CREATED"
    UPLOADING = "UPLOADING"
    QUEUED = "QUEUED"
    PROCESSING = "PROCESSING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    EXPIRED = "EXPIRED"


class User(Base):
    __tablename__ = "users"

    id = Column(Integer, primary_key=True)
    email = Column(String(255))


class Task(Base):
    __tablename__ = "tasks"

    task_id = Column(String(36), primary_key=True)
    user_id = Column(Integer)
    tool_id = Column(String(64))
    status = Column(String(16))
    progress = Column(Integer, default=0)
    current_agent = Column(String(64))
    error_code = Column(String(64))
    error_message = Column(String(1000))
    created_at = Column(DateTime)
    processing_started_at = Column(DateTime)
    completed_at = Column(DateTime)
    failed_at = Column(DateTime)
    expired_at = Column(DateTime)
    s3_cleaned = Column(Boolean, default=False)
