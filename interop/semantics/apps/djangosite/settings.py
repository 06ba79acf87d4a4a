"""The project's settings."""

import os

SECRET_KEY = "of no use to anybody"
INSTALLED_APPS = ["djangosite.orders"]
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": os.environ.get("SEMANTICS_DB", ":memory:")}}
USE_TZ = True
TIME_ZONE = "Europe/Lisbon"
SHOP = "corner shop"
CELERY_BROKER_URL = CELERY_RESULT_BACKEND = os.environ["SEMANTICS_URL"]
CELERY_TASK_DEFAULT_QUEUE = "django"
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_TASK_TIME_LIMIT = 60
