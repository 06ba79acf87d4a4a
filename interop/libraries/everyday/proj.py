"""Celery as Flask's documentation sets it up, with tasks of which only one may run, and tasks to abort."""

import os
import threading

from celery import Celery, Task, shared_task
from celery.contrib.abortable import AbortableTask
from celery.signals import worker_ready
from celery_once import QueueOnce
from celery_singleton import Singleton, clear_locks
from flask import Flask, current_app, g


def celery_of(flask_app):
    """Every task runs inside the context of the Flask app."""

    class FlaskTask(Task):
        def __call__(self, *args, **kwargs):
            with flask_app.app_context():
                return self.run(*args, **kwargs)

    made = Celery(flask_app.name, task_cls=FlaskTask)
    made.config_from_object(flask_app.config["CELERY"])
    made.set_default()
    flask_app.extensions["celery"] = made
    return made


flask_app = Flask("shop")
flask_app.config.from_mapping(SHOP="corner shop", CELERY={
    "broker_url": os.environ["URL"], "result_backend": os.environ["URL"],
    "singleton_lock_expiry": 600,
    "ONCE": {"backend": "celery_once.backends.Redis",
             "settings": {"url": os.environ["URL"], "default_timeout": 600}},
})
app = celery_of(flask_app)
redis = app.backend.client


@worker_ready.connect
def unlock(**_arguments):
    """Locks of workers that were killed."""
    clear_locks(app)


@flask_app.teardown_appcontext
def note(error):
    redis.rpush("left", f"{g.get('what')} {error!r}")


@shared_task(name="shop")
def shop(what):
    g.what = what
    if what == "nothing":
        raise ValueError(what)
    return current_app.config["SHOP"]


def wait(key):
    redis.rpush("began", key)
    assert redis.blpop(key)


@app.task(name="single", base=Singleton)
def single(key):
    wait(key)
    if key == "fails":
        raise ValueError(key)
    return key


@app.task(name="single.hangs", base=Singleton, time_limit=1)
def hangs():
    threading.Event().wait()


@app.task(name="once", base=QueueOnce)
def once(key):
    wait(key)
    if key == "fails":
        raise ValueError(key)
    return key


@app.task(name="once.hangs", base=QueueOnce, time_limit=1)
def hangs_once():
    threading.Event().wait()


@app.task(name="counts", base=AbortableTask, bind=True)
def counts(self):
    number = 0
    while not self.is_aborted():
        number += 1
        if number == 1:
            redis.rpush("began", "counts")
    return number > 0
