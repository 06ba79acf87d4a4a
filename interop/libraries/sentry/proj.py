"""An app that sentry watches, initialised when it is imported."""

import json
import os
import threading

import sentry_sdk
from celery import Celery
from sentry_sdk.integrations.celery import CeleryIntegration
from sentry_sdk.transport import HttpTransport


class Notes(HttpTransport):
    """Sends as sentry does, by a thread behind a queue, but into a file, and only once it is asked to flush:
    a process that ends without a flush loses what it has to tell."""

    def __init__(self, options):
        super().__init__(options)
        self._asked = threading.Event()

    def flush(self, *arguments, **options):
        self._asked.set()
        super().flush(*arguments, **options)

    def _send_envelope(self, envelope):
        self._asked.wait()
        with open("notes.jsonl", "a") as notes:
            for item in envelope.items:
                if item.payload.json is not None and item.type in ("event", "transaction"):
                    notes.write(json.dumps({"type": item.type, **item.payload.json}) + "\n")


sentry_sdk.init(
    dsn="http://key@localhost/1", transport=Notes, traces_sample_rate=1.0, send_default_pii=True,
    integrations=[CeleryIntegration(propagate_traces=True)],
)
app = Celery("proj", broker=os.environ["URL"], backend=os.environ["URL"])


@app.task(name="adds")
def adds(x, y):
    sentry_sdk.set_tag("of the task", x)
    return x + y


@app.task(name="fails")
def fails(text):
    raise ValueError(text)


@app.task(name="again", bind=True, max_retries=2)
def again(self):
    if self.request.retries < 1:
        raise self.retry(countdown=0)
    return adds.delay(4, 5).id


@app.task(name="hangs", time_limit=1)
def hangs():
    threading.Event().wait()
