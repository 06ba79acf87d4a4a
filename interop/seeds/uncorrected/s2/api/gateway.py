# Current implementation in API
if CELERY_ENABLED and random.random() < CELERY_PERCENTAGE:
    task_id = submit_evaluation_to_celery(eval_id, code, language)
else:
    # Use legacy queue
    response = await client.post(f"{QUEUE_SERVICE_URL}/tasks", ...)
