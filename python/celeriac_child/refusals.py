"""Messages that cannot become a run."""

from __future__ import annotations

from celery.exceptions import InvalidTaskError, NotRegistered
from celery.worker.consumer.consumer import Consumer
from kombu.exceptions import ContentDisallowed, DecodeError

from . import logs, outcomes


class ConsumerStandIn(Consumer):
    """Celery's consumer for receivers that look at it, as the sender of `worker_ready` and `task_received`.

    It never connects: the worker consumes.
    """

    pool = timer = connection = event_dispatcher = qos = task_consumer = None
    initial_prefetch_count = 0

    def __init__(self, worker):
        """Without what Celery's own does: its parts would start."""
        self.app = worker.app
        self.hostname = worker.hostname
        self.controller = worker


ConsumerStandIn.__name__, ConsumerStandIn.__qualname__ = Consumer.__name__, Consumer.__qualname__


def consumer_of(worker) -> Consumer:
    """The consumer of a worker, as receivers of signals see it."""
    return ConsumerStandIn(worker)


class Refuser:
    """Stands for the consumer and its channel in those methods of the consumer that refuse a message."""

    connection_errors = ()
    event_dispatcher = None

    def __init__(self, app, hostname):
        self.app = app
        self.hostname = hostname
        self.no_ack_consumers = None

    def basic_ack(self, *_args, **_options) -> None:
        """The channel's half: the worker settles the message."""

    def basic_reject(self, *_args, **_options) -> None:
        """The channel's half: the worker settles the message."""

    def refuse(self, delivery, error) -> bytes:
        """Tells the app and the log as Celery would; the meta of `D`, by which the worker rejects.

        Celery acknowledges what does not decode (on_decode_error); rejected, it can be dead-lettered.
        """
        self._tell(delivery, error)
        exception = outcomes.describe(error)
        if isinstance(error, NotRegistered):
            # worker/consumer/consumer.py:on_unknown_task writes the event so.
            exception["repr"] = f"NotRegistered({delivery.headers['task']!r})"
        return outcomes.done(outcomes.FAILURE, outcomes.REJECT, 0.0, exception)

    def _tell(self, delivery, error) -> None:
        """worker/consumer/consumer.py: on_unknown_task, on_invalid_task and on_decode_error, 5.2 to 5.7."""
        message = delivery and delivery.message(self.app, channel=self)
        if isinstance(error, NotRegistered):
            Consumer.on_unknown_task(self, None, message, error)
        elif message and isinstance(error, (InvalidTaskError, ContentDisallowed)):
            Consumer.on_invalid_task(self, None, message, error)
        elif message and isinstance(error, DecodeError):
            Consumer.on_decode_error(self, message, error)
        else:
            logs.error("Received a message that cannot be read: %r", error, exc_info=True)
