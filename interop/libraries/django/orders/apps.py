"""An app that has a connection before Celery forks."""

from django.apps import AppConfig


class Orders(AppConfig):
    name = "orders"

    def ready(self):
        from django.db import connection

        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
