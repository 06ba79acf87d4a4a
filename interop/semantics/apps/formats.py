"""An app that writes its log in its own way, keeps pickled results, and has a queue for each worker."""

import logging
import os
import sys

from celery import Celery
from celery.utils.log import get_task_logger

from proj.world import note, wait_at

logging.basicConfig(format="BEFORE|%(name)s|%(message)s", level=logging.INFO)
logger = get_task_logger(__name__)

app = Celery("formats", broker=os.environ["SEMANTICS_URL"], backend=os.environ["SEMANTICS_URL"])
app.conf.update(
    broker_connection_retry_on_startup=True,
    worker_log_format="%(levelname)s|%(processName)s|%(message)s",
    worker_task_log_format="%(levelname)s|%(task_name)s|%(task_id)s|%(message)s",
    worker_hijack_root_logger=False,
    worker_redirect_stdouts_level="ERROR",
    worker_direct=True,
    worker_prefetch_multiplier=1,
    worker_disable_rate_limits=True,
    task_default_queue="formats",
    task_track_started=True,
    result_serializer="pickle",
    accept_content=["json", "pickle"],
)


@app.task
def speaks(word):
    """In every way."""
    logger.warning("%s by the task logger", word)
    logging.getLogger("somebody").warning("%s by a library", word)
    print(word, "printed")
    print(word, "on stderr", file=sys.stderr)


@app.task
def pair(x, y):
    """What only pickle keeps."""
    return (x, {y})


@app.task
def ordered(name, gate=None):
    """Says when its turn was."""
    note("turn", name=name)
    return wait_at(gate) if gate else name
