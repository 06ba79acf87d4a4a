# Start worker (terminal 1)
./scripts/start_celery_worker.sh

# Start beat scheduler (terminal 2)
./scripts/start_celery_beat.sh

# Start Flower monitoring UI (terminal 3)
celery -A consultantos.jobs.celery_app flower --port=5555
