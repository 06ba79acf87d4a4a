"""The old scheduler (S4 L49): APScheduler in the API's process."""

from apscheduler.schedulers.background import BackgroundScheduler

scheduler = BackgroundScheduler(timezone="UTC")
