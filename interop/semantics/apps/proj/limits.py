"""Time limits and rates."""

import time

from celery.exceptions import SoftTimeLimitExceeded

from .celery import app
from .world import note

LONG = 30


@app.task(soft_time_limit=0.5)
def soft_caught():
    """Cleans up and returns."""
    try:
        time.sleep(LONG)
    except SoftTimeLimitExceeded as error:
        return ["cleaned up", repr(error)]


@app.task(soft_time_limit=0.5)
def soft():
    """Does not."""
    time.sleep(LONG)


@app.task(time_limit=1)
def hard():
    """Is killed."""
    time.sleep(LONG)


@app.task(bind=True, soft_time_limit=20, time_limit=25)
def called(self):
    """Limits of the call are stronger than those of the task."""
    try:
        time.sleep(LONG)
    except SoftTimeLimitExceeded:
        return self.request.timelimit


@app.task(bind=True, acks_late=True, time_limit=1)
def late_hard(self):
    """Acknowledged when it is killed."""
    time.sleep(LONG)


@app.task(bind=True, acks_late=True, time_limit=1, acks_on_failure_or_timeout=False)
def late_keeps(self):
    """Comes back when it is killed."""
    if self.request.delivery_info["redelivered"]:
        return "again"
    time.sleep(LONG)


@app.task(bind=True, rate_limit="2/s")
def slow_lane(self, number):
    """Two a second."""
    note("time", self.request.id, at=time.time())
    return number
