"""An app that opentelemetry watches, instrumented where its documentation says."""

import json
import os
import sys

from celery import Celery, signals
from opentelemetry import trace
from opentelemetry.instrumentation.celery import CeleryInstrumentor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult


class Notes(SpanExporter):
    """Writes spans into a file."""

    def export(self, spans):
        with open("notes.jsonl", "a") as notes:
            notes.writelines(json.dumps(json.loads(span.to_json())) + "\n" for span in spans)
        return SpanExportResult.SUCCESS


def instrument(**_arguments):
    """Spans wait for an hour: whoever does not flush loses them."""
    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(Notes(), schedule_delay_millis=3_600_000))
    trace.set_tracer_provider(provider)
    CeleryInstrumentor().instrument()


if "threads" in sys.argv:
    # Celery sends no `worker_process_init` in this pool.
    signals.worker_init.connect(instrument, weak=False)
else:
    signals.worker_process_init.connect(instrument, weak=False)


@signals.worker_process_shutdown.connect
def flush(**_arguments):
    """Children of Celery's prefork pool do not come to `atexit`, where the provider would do it."""
    trace.get_tracer_provider().force_flush()


app = Celery("proj", broker=os.environ["URL"], backend=os.environ["URL"])


@app.task(name="adds")
def adds(x, y):
    with trace.get_tracer(__name__).start_as_current_span("of the task"):
        return x + y


@app.task(name="fails")
def fails(text):
    raise ValueError(text)


@app.task(name="again", bind=True, max_retries=2)
def again(self):
    if self.request.retries < 1:
        # The library keeps spans by the task's id: the next run must not begin in this process before this
        # one ends.
        raise self.retry(exc=KeyError("later"), countdown=0.5)
    return adds.delay(4, 5).id
