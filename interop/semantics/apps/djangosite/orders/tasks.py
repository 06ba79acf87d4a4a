"""Found by Celery in every installed app."""

from celery import shared_task
from django.apps import apps
from django.conf import settings
from django.db import connection, transaction
from django.utils import timezone

from .models import Order


@shared_task(bind=True)
def place(self, what):
    """Uses models and the database."""
    with connection.schema_editor() as editor:
        if Order._meta.db_table not in connection.introspection.table_names():
            editor.create_model(Order)
    order = Order.objects.create(what=what)
    return [Order.objects.get(pk=order.pk).what, settings.SHOP, apps.ready, timezone.get_current_timezone_name(),
            [kind.__name__ for kind in type(self).__mro__ if kind.__module__.startswith("celery")],
            self.app.conf.task_time_limit]


@shared_task
def later(what):
    """Sends another task when its transaction is through, where this Celery can."""
    with transaction.atomic():
        send = getattr(place, "delay_on_commit", None)
        if send is not None:
            send(what)
    return connection.in_atomic_block
