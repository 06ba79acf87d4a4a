"""Signals of the worker itself; those of tasks are told with each task."""

from collections import Counter

from celery import signals as celery_signals
from kit.play import scene
from kit.stage import until
from proj import outcomes
from proj.signals import WITHOUT

#: Sent again and again, or once for each process: how often is not told.
OFTEN = {"heartbeat_sent", "worker_process_init", "worker_process_shutdown", "worker_before_create_process",
         "before_task_publish", "after_task_publish", "task_sent", "import_modules"}


@scene("signals of the worker")
async def of_the_worker(play):
    """Who fires them, how often, with what."""
    await until("a heartbeat", lambda: play.stage.notes("signal", signal="heartbeat_sent"), 10)
    await play.life("a task", outcomes.add.s(1, 1))
    play.afterwards(lambda: tell(play))


def tell(play):
    """One feature for each signal that is not a task's."""
    found = {}
    for name, signal in vars(celery_signals).items():
        if not isinstance(signal, celery_signals.Signal) or name in WITHOUT:
            continue
        if name.startswith(("task_", "eventlet_", "beat_")):
            continue
        notes = Counter(
            f"{note['role']}: sender={note['sender']} {note['arguments']} {note['values']}"
            for note in play.stage.notes("signal", signal=name))
        found[name] = "\n".join(sorted(
            text if name in OFTEN else f"{count} × {text}" for text, count in notes.items())) or "never"
    for name, text in found.items():
        play.say(name, text)
    order = [note["signal"] for note in play.stage.notes("signal", role="worker")
             if note["signal"] not in OFTEN and not note["signal"].startswith("task_")]
    play.say("order in the main process", " ".join(order))
