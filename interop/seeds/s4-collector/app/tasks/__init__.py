"""Tasks by kind; the routes of app.celery_worker go by module."""
