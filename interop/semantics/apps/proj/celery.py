"""The app itself: `-A proj` finds it here."""

import logging
import os

from celery import Celery

from . import signals

#: Celery takes the root logger away from whoever set it up before (worker_hijack_root_logger).
logging.basicConfig(format="BEFORE %(message)s", level=logging.INFO)

app = Celery(
    "proj",
    include=["proj.outcomes", "proj.requests", "proj.canvas", "proj.limits", "proj.logs", "proj.wire"],
)
app.config_from_object("proj.settings")
app.autodiscover_tasks(["proj.shop"])
signals.listen()


@app.on_after_configure.connect
def periodic(sender, **_details):
    """As the manual shows it."""
    sender.add_periodic_task(3600.0, sender.signature("proj.outcomes.add", (1, 1)), name="every hour")


@app.on_after_finalize.connect
def finalized(sender, **_details):
    """Tasks are known by now."""
    sender.finalized_with = "proj.outcomes.add" in sender.tasks


assert os.environ["SEMANTICS_URL"]
