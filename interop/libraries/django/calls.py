import contextlib
import subprocess
import sys

from proj import celery_app as app

import django

django.setup()

from celery import chord, group  # noqa: E402: models need the settings
from django_celery_beat.models import IntervalSchedule, PeriodicTask  # noqa: E402
from django_celery_results.models import ChordCounter, GroupResult, TaskResult  # noqa: E402
from kit import end, until  # noqa: E402
from orders import tasks  # noqa: E402
from orders.models import Order  # noqa: E402

labels = {}


def told(label, result):
    labels[result.id] = label
    print(label, end(result))


told("a connection of its own", tasks.place.delay("milk"))
for _ in range(3):
    # With two children, one of them has run it before.
    told("and each time", tasks.place.delay("milk"))
told("on commit", tasks.buy.delay("bread"))
told("rolled back", tasks.buy.delay("cheese", fails=True))
until("what was sent on commit", lambda: TaskResult.objects.filter(
    task_name="orders.tasks.place", status="SUCCESS").count() == 5)
told("a retry", tasks.again.delay())
told("states", tasks.states.delay())
told("a chord", chord([tasks.add.s(n, n) for n in range(4)], tasks.total.s())())
saved = group(tasks.add.s(n, 1) for n in range(3))()
saved.save()
print("a group", end(saved), GroupResult.objects.get(group_id=saved.id).group_id == saved.id)
revoked = tasks.add.apply_async((1, 2), countdown=600)
revoked.revoke()
told("revoked", revoked)
told("expired", tasks.add.apply_async((1, 2), expires=-1))
told("hard limit", tasks.hangs.delay())

every, _ = IntervalSchedule.objects.get_or_create(every=1, period="seconds")
PeriodicTask.objects.create(interval=every, name="the clock", task="orders.tasks.ticks", one_off=True)
with contextlib.ExitStack() as stack:
    log = stack.enter_context(open("beat.log", "w"))
    beat = subprocess.Popen([sys.executable, "-m", "celery", "-A", "proj", "beat", "-l", "debug"],
                            stdout=log, stderr=log)
    stack.callback(beat.wait)
    stack.callback(beat.terminate)
    until("a tick", lambda: TaskResult.objects.filter(task_name="orders.tasks.ticks", status="SUCCESS"))

print("orders", sorted(Order.objects.values_list("what", flat=True)))
print("chords that wait", ChordCounter.objects.count())
rows = []
# What Celery's worker stores when it hears of a revocation has no arguments, although it should; ours has.
TaskResult.objects.filter(status="REVOKED", task_id=revoked.id).update(task_name=None, task_args=None,
                                                                      task_kwargs=None, worker=None)
for row in TaskResult.objects.all():
    rows.append(repr([
        labels.get(row.task_id), row.task_name, row.status, row.task_args, row.task_kwargs, row.result[:90],
        row.worker, row.content_type, row.content_encoding, row.periodic_task_name, row.meta is not None,
        (row.traceback or "").strip().splitlines()[-1:], row.date_started is not None,
        row.date_done is not None,
    ]).replace(row.task_id, "<id>"))
print("\n".join(sorted(rows)))
