"""Found by Celery in every installed app."""

import os
import threading

from celery import shared_task
from django.db import connection, transaction
from django.db.backends.signals import connection_created
from django.dispatch import receiver

from .models import Order


connected = []


@receiver(connection_created)
def note(**_arguments):
    connected.append(os.getpid())


@shared_task
def place(what):
    """Tells whether the row was there before, and whether the connection is one that this process has opened
    for this run."""
    order, made = Order.objects.get_or_create(what=what)
    last, place.last = getattr(place, "last", None), connection.connection
    return [order.what, made, connected[-1] == os.getpid(), connection.connection is not last]


@shared_task
def buy(what, fails=False):
    """Its task must find the row, for it is sent when the transaction is through."""
    with transaction.atomic():
        Order.objects.create(what=what)
        place.delay_on_commit(what)
        connection.cursor().execute("SELECT 1")
        if fails:
            raise ValueError(what)


@shared_task
def add(x, y):
    return x + y


@shared_task
def total(numbers):
    return sum(numbers)


@shared_task(bind=True, max_retries=1)
def again(self):
    if not self.request.retries:
        raise self.retry(exc=KeyError("later"), countdown=0.5)
    return self.request.retries


@shared_task(bind=True)
def states(self):
    """What the table says while it runs, and a state of its own."""
    from django_celery_results.models import TaskResult

    before = TaskResult.objects.get(task_id=self.request.id).status
    self.update_state(state="HALF", meta={"percent": 50})
    return [before, TaskResult.objects.get(task_id=self.request.id).status]


@shared_task
def hangs():
    threading.Event().wait()


@shared_task
def ticks():
    return "tick"
