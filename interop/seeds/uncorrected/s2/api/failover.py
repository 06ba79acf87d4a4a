# Failover implementation
try:
    task_id = submit_evaluation_to_celery(eval_id, code, language)
    if not task_id:
        raise Exception("Celery submission failed")
except Exception as e:
    logger.warning(f"Celery failed, falling back: {e}")
    # Fallback to legacy queue
    await submit_to_legacy_queue(eval_id, code)
