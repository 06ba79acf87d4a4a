"""Settings as a module, the usual way."""

from os import environ as _environ

broker_url = result_backend = _environ["SEMANTICS_URL"]
broker_connection_retry_on_startup = True
accept_content = ["json", "pickle", "yaml", "msgpack"]
result_extended = True
timezone = "Europe/Lisbon"
enable_utc = True
worker_cancel_long_running_tasks_on_connection_loss = True
task_routes = {"proj.outcomes.routed": {"queue": "other"}}
