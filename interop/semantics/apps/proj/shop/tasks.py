"""Found by `autodiscover_tasks`, and bound to whatever app is current (`shared_task`)."""

from celery import shared_task


@shared_task
def buy(what):
    """Says what was bought."""
    return f"bought {what}"


@shared_task(name="shop.named", bind=True)
def named(self):
    """A shared task with a name of its own."""
    return [self.name, self.app.main]
