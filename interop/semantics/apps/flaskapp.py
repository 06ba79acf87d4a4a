"""A Flask app and its Celery app, as Flask's manual joins them."""

import os

from celery import Celery, Task
from flask import Flask, current_app


def celery_init_app(app):
    """Tasks run inside the context of the Flask app."""

    class FlaskTask(Task):
        def __call__(self, *args, **kwargs):
            with app.app_context():
                return self.run(*args, **kwargs)

    made = Celery(app.name, task_cls=FlaskTask)
    made.config_from_object(app.config["CELERY"])
    made.set_default()
    app.extensions["celery"] = made
    return made


flask_app = Flask(__name__)
flask_app.config.from_mapping(SHOP="corner shop", CELERY={
    "broker_url": os.environ["SEMANTICS_URL"],
    "result_backend": os.environ["SEMANTICS_URL"],
    "task_default_queue": "flask",
    "broker_connection_retry_on_startup": True,
})
celery_app = celery_init_app(flask_app)


@celery_app.task(bind=True)
def shop(self):
    """Knows where it runs."""
    return [current_app.config["SHOP"], self.name, type(self).__mro__[1].__name__]
