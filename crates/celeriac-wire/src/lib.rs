//! Bytes and values of the Celery protocol: messages, bodies, signatures, results
