//! A Celery-compatible task queue in one Rust binary
