# Start multiple workers with prefork pool
celery -A celery_app worker --loglevel=info --concurrency=4

# Or with gevent for I/O bound tasks
celery -A celery_app worker --loglevel=info --pool=gevent --concurrency=100
