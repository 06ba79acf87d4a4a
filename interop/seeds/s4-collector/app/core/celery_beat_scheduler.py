"""A beat scheduler whose entries are in Redis (S4 L71-82); the seed names it and does not show it.

Entries are fields of the hash `collector:schedule`: {"task", "args", "seconds", "paused"}.
"""

import json
import logging
import os

import redis
from celery.beat import ScheduleEntry, Scheduler
from celery.schedules import schedule

logger = logging.getLogger(__name__)
KEY = "collector:schedule"
# T-74: the seed reads every 60 seconds, so that a pause takes up to a minute.
SYNC_SECONDS = float(os.getenv("BEAT_SYNC_SECONDS", "60"))


def client():
    return redis.Redis.from_url(os.getenv("REDIS_URL", "redis://localhost:6379/0"))


class RedisBeatScheduler(Scheduler):
    sync_every = SYNC_SECONDS

    def __init__(self, *args, **kwargs):
        self._entries = {}
        super().__init__(*args, **kwargs)
        self.max_interval = min(self.max_interval or SYNC_SECONDS, SYNC_SECONDS)

    def setup_schedule(self):
        self._read()
        self.install_default_entries(self._entries)

    def _read(self):
        try:
            stored = {key.decode(): json.loads(value) for key, value in client().hgetall(KEY).items()}
        except redis.RedisError as error:
            logger.warning(f"the schedule is kept as it is: {error}")
            return
        entries = {}
        for name, entry in stored.items():
            if entry.get("paused"):
                continue
            old = self._entries.get(name)
            every = schedule(entry["seconds"])
            if old and old.schedule == every and old.task == entry["task"] and old.args == entry["args"]:
                entries[name] = old
            else:
                entries[name] = ScheduleEntry(
                    name=name, task=entry["task"], args=entry["args"], schedule=every, app=self.app)
        self._entries = entries

    @property
    def schedule(self):
        return self._entries

    def tick(self, *args, **kwargs):
        before = set(self._entries)
        self._read()
        if before != set(self._entries):
            self._heap = None
        return min(super().tick(*args, **kwargs), SYNC_SECONDS)
