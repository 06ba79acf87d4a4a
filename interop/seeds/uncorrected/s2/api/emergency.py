# In api/microservices_gateway.py
FORCE_LEGACY_QUEUE = os.getenv('FORCE_LEGACY_QUEUE', 'false') == 'true'

if FORCE_LEGACY_QUEUE:
    # Override all Celery logic
    return await submit_to_legacy_queue(...)
