"""Gives CELERY_RESULT_BACKEND to Python only: celeriac refuses the variable (see the README)."""

import os

if "SEED_RESULT_BACKEND" in os.environ:
    os.environ["CELERY_RESULT_BACKEND"] = os.environ["SEED_RESULT_BACKEND"]
