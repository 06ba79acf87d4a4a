celery -A celery_app flower --port=5555
