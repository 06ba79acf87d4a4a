"""What a task is told about its run."""

import sys

from celery import current_app, current_task
from celery.utils.nodenames import gethostname

from .celery import app

#: Fields that hold objects; their type is told.
OBJECTS = ("_children", "logfile")


@app.task(bind=True)
def about(self, *_args, **_kwargs):
    """Every field of `self.request`."""
    fields = dict(vars(type(self.request)))
    fields.update(vars(self.request))
    plain = {}
    for name, value in fields.items():
        if name.startswith("__") or callable(value) or isinstance(value, (property, staticmethod, classmethod)):
            continue
        plain[name] = value if isinstance(value, (str, int, float, bool, type(None), list, dict)) else repr(value)
    plain["children"] = list(self.request.children)
    return plain


@app.task(bind=True)
def around(self):
    """What else a task finds around it."""
    return {
        "current_task": current_task.name,
        "current_app": current_app.main,
        "same app": current_app._get_current_object() is app,
        "argv": sys.argv[0].rsplit("/", 1)[-1],
        "host": gethostname() == self.request.hostname.split("@")[1],
        "schedule": sorted(self.app.conf.beat_schedule),
        "finalized": getattr(self.app, "finalized_with", None),
        "timezone": str(self.app.timezone),
        "worker": self.app.conf.worker_hijack_root_logger,
        "main": sys.modules["__main__"].__name__,
    }


@app.task(bind=True)
def depth(self):
    """How a task called as a function sees its request."""
    inner = about.run
    return [about()["called_directly"], callable(inner), self.request.called_directly]
