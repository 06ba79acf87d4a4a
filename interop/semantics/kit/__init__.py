"""What the scenes are made of. It runs in the app's environment and needs nothing but its Celery."""
