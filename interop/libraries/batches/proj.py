"""An app with a task that is called once for many messages."""

import os

from celery import Celery
from celery_batches import Batches

app = Celery("proj", broker=os.environ["URL"], backend=os.environ["URL"])
# A worker has to hold as many messages as a batch has.
app.conf.update(task_routes={"counts": "many"}, worker_prefetch_multiplier=0)


@app.task(name="counts", base=Batches, flush_every=10, flush_interval=600)
def counts(requests):
    for request in requests:
        app.backend.mark_as_done(request.id, len(requests), request=request)


@app.task(name="where", bind=True)
def where(self):
    return self.request.hostname
