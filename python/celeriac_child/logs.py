"""Lines that Celery's main process writes about tasks, written by the child that runs them."""

from __future__ import annotations

import logging
import os

from celery.app.trace import LOG_RECEIVED
from celery.utils.log import get_logger
from celery.utils.time import maybe_iso8601, maybe_make_aware
from celery.worker import request as celery_request
from celery.worker import strategy as celery_strategy

from .outcomes import as_main_process

_logger = get_logger("celeriac")


def error(text: str, *values, exc_info: bool = False) -> None:
    """An error of this package."""
    _logger.error(text, *values, exc_info=exc_info)


class TaskLog:
    """The lines of `celery.worker.strategy` and `celery.worker.request`, 5.2 to 5.7, by their loggers."""

    def __init__(self, app):
        self._app = app
        self.info = celery_strategy.logger.isEnabledFor(logging.INFO)
        self.debug = celery_request.logger.isEnabledFor(logging.DEBUG)
        self._default_soft_limit = app.conf.task_soft_time_limit

    def received(self, delivery, task) -> None:
        """worker/strategy.py:task_message_handler."""
        headers = delivery.headers
        eta = headers.get("eta")
        if eta is not None:
            eta = maybe_make_aware(maybe_iso8601(eta), self._app.conf.timezone)
        context = {
            "id": headers["id"],
            "name": headers.get("shadow") or task.name,
            "args": headers.get("argsrepr", ""),
            "kwargs": headers.get("kwargsrepr", ""),
            "eta": eta,
        }
        with as_main_process():
            celery_strategy.logger.info(LOG_RECEIVED, context, extra={"data": context})

    def accepted(self, run) -> None:
        """worker/request.py:on_accepted."""
        headers = run.delivery.headers
        name = headers.get("shadow") or run.task.name
        with as_main_process():
            celery_request.logger.debug("Task accepted: %s[%s] pid:%r", name, headers["id"], os.getpid())

    def soft_limit(self, run) -> None:
        """worker/request.py:on_timeout, with the limit that the pool would have taken."""
        headers = run.delivery.headers
        limit = (headers.get("timelimit") or (None, None))[1] or run.task.soft_time_limit
        limit = limit or self._default_soft_limit
        # Without one it was an operator's signal, of which Celery's main process says nothing.
        if not limit:
            return
        with as_main_process():
            celery_request.logger.warning(
                "Soft time limit (%ss) exceeded for %s[%s]",
                limit,
                headers.get("shadow") or run.task.name,
                headers["id"],
            )
