celery -A celery_app worker --loglevel=info --pool=solo
