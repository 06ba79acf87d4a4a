import os

import sentry_sdk
from kit import end, until
from proj import adds, again, app, fails, hangs
from told import notes

with sentry_sdk.start_transaction(name="the script", op="test"):
    print(end(adds.delay(2, 3)))
    print(end(fails.delay("no rows")))
    kind, inner = end(again.delay())
    print(kind, end(app.AsyncResult(inner)))
    if os.environ["POOL"] == "prefork":
        # Its tasks are up: it ends, and what it has to tell must be out before another one does.
        until("the first child has told", lambda: len(notes()) >= 5)
        print(end(hangs.delay()))
    print(end(adds.delay(6, 7)))
