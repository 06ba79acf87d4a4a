"""The app that is played by stock Celery and by celeriac; neither knows which of them it is."""
