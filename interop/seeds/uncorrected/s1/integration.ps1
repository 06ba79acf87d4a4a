# Start Redis
docker run -d -p 6379:6379 redis:7-alpine

# Start Celery worker in test mode
celery -A queue.celery_app worker --loglevel=info --pool=solo

# Run integration tests
pytest tests/queue/test_integration.py -v
