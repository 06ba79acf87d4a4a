"""An installed Django app with tasks."""
