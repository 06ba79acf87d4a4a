# Script to migrate Celery tasks back to legacy
for task in celery_app.control.inspect().active():
    # Extract evaluation ID
    eval_id = task['args'][0]
    # Resubmit to legacy queue
    legacy_queue.submit(eval_id, task['args'][1])
