"""The Python half of a celeriac worker: loads a Celery app and runs its tasks in forked children.

It speaks protocol 1 of `docs/reference/python-children.md` and uses the standard library and the app's own
Celery, kombu and billiard. It never touches the broker's queues: the worker owns them.
"""

PROTOCOL = 1

#: The versions of Celery whose inner parts this package was tested with: from, and below.
CELERY_FROM = (5, 2)
CELERY_BELOW = (5, 8)
