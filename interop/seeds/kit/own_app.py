"""An app that names its broker and its limits itself, for scenes about the environment."""

import os

from celery import Celery

app = Celery("own", broker=os.environ["SEED_BROKER"], backend=os.environ["SEED_BROKER"])
app.conf.update(worker_concurrency=1, task_time_limit=50, task_default_queue="own")


@app.task
def add(x, y):
    return x + y
