"""A receiver for every signal of Celery, which notes who fired it and with what."""

from celery import signals

from .world import note

#: Its mere receiver means that Celery leaves logging alone; another app has it.
WITHOUT = {"setup_logging"}
#: What of the arguments is noted with its value; of the others only the name.
VALUES = ("exc", "exception", "exitcode", "expired", "how", "loglevel", "name", "reason", "result", "retval",
          "sig", "signum", "state", "terminated")


def task_id_of(sender, details):
    """The id of the task that a signal is about."""
    if details.get("task_id"):
        return details["task_id"]
    for holder in (details.get("request"), getattr(sender, "request", None)):
        if getattr(holder, "id", None):
            return holder.id
    headers = details.get("headers") or getattr(details.get("message"), "headers", None) or {}
    return headers.get("id") or details.get("id")


def name_of(sender):
    """A sender is a task, its name, or a part of the worker."""
    if sender is None or isinstance(sender, str):
        return sender
    if isinstance(sender, type):
        return sender.__name__
    return getattr(sender, "name", None) or f"<{type(sender).__name__}>"


def receiver(name):
    """A receiver that notes; Celery calls it with the arguments of the signal."""

    def receive(sender=None, signal=None, **details):
        shown = {key: repr(details[key]) for key in VALUES if key in details}
        note("signal", task_id_of(sender, details), signal=name, sender=name_of(sender),
             arguments=sorted(details), values=shown)

    return receive


def listen():
    """Connects them all."""
    for name, signal in vars(signals).items():
        if isinstance(signal, signals.Signal) and name not in WITHOUT:
            signal.connect(receiver(name), weak=False, dispatch_uid=f"semantics-{name}")
