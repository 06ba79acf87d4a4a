import proj  # noqa: F401: settings
from django import setup
from django.core.management import call_command

setup()
call_command("migrate", run_syncdb=True, verbosity=0)
