from kit import end
from opentelemetry import trace
from proj import adds, again, app, fails, instrument

instrument()
with trace.get_tracer("script").start_as_current_span("the script"):
    print(end(adds.delay(2, 3)))
    print(end(fails.delay("no rows")))
    kind, inner = end(again.delay())
    print(kind, end(app.AsyncResult(inner)))
