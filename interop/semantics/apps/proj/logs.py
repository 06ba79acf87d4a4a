"""What tasks print and log."""

import logging
import sys
import warnings

from celery.utils.log import get_task_logger

from .celery import app

logger = get_task_logger(__name__)
plain = logging.getLogger("somebody.else")


@app.task
def speaks(word):
    """By the logger of tasks."""
    logger.debug("%s quietly", word)
    logger.info("%s aloud", word)
    logger.error("%s in anger", word)


@app.task
def library(word):
    """By a library's logger and the root."""
    plain.debug("%s by a library, quietly", word)
    plain.warning("%s by a library", word)
    logging.warning("%s by the root", word)


@app.task
def prints(word):
    """By print: Celery turns it into log lines."""
    print(word, "on stdout")
    print(word, "on stderr", file=sys.stderr)
    sys.stdout.write(f"{word} without an end")


@app.task
def traces(word):
    """An exception that is logged."""
    try:
        raise KeyError(word)
    except KeyError:
        logger.exception("%s with a traceback", word)


@app.task
def warns(word):
    """A warning of Python."""
    warnings.warn(f"{word} is old", UserWarning, stacklevel=1)


@app.task
def handlers():
    """Who writes the log."""
    root = logging.getLogger()
    return [[type(one).__name__ for one in root.handlers], root.level,
            [type(one).__name__ for one in logging.getLogger("celery.task").handlers], type(sys.stdout).__name__]
