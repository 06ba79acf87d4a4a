"""A module that is its own worker: `python selfrun.py worker`. It sets up logging itself."""

import logging
import os
import sys

from celery import Celery, signals

app = Celery("selfrun", broker=os.environ["SEMANTICS_URL"], backend=os.environ["SEMANTICS_URL"])
app.conf.task_default_queue = "selfrun"
app.conf.broker_connection_retry_on_startup = True


@signals.setup_logging.connect
def own_logging(loglevel, **_details):
    """Celery leaves logging alone because of this receiver."""
    logging.basicConfig(format="OWN|%(name)s|%(message)s", level=loglevel)


@app.task
def add(x, y):
    """Its name is that of the module, however it was started."""
    logging.getLogger("selfrun.tasks").info("adding")
    return x + y


if __name__ == "__main__":
    app.start(sys.argv[1:])
