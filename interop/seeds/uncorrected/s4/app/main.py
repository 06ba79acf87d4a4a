USE_CELERY = os.getenv("USE_CELERY", "false").lower() == "true"
if not USE_CELERY:
    from app.core import scheduler
