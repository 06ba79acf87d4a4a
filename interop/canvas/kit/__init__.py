"""What runs in the environment of a Celery: the app, the shapes, and whoever sends them."""
