"""Workers of other apps, each with its own queues."""

import importlib
import importlib.util
import re
import sys

from kit.plain import plain
from kit.play import scene
from kit.stage import until


def imported(name):
    """A module that makes an app of its own; the driver's stays the current one."""
    from proj.celery import app

    module = importlib.import_module(name)
    app.set_current()
    app.set_default()
    return module


async def said(play, feature, result):
    """Says how a task ended."""
    await until(feature, result.ready)
    play.say(feature, [result.state, repr(result.result)])


def log_told(play, feature, worker, word):
    """Says, when all has ended, the lines of a worker's log that hold a word."""
    play.afterwards(lambda: play.say(feature, "\n".join(sorted(
        plain(line) for line in worker.text().splitlines() if re.search(word, line))) or "nothing"))


@scene("formats of the log", own=True)
async def formats(play):
    """worker_log_format, worker_task_log_format, no root hijack; worker_direct; pickled results; priorities."""
    from celery.utils.nodenames import worker_direct

    made = imported("formats")
    worker = await play.stage.worker("formats", "w2", "-l", "INFO", "-c", "1").ready()
    await said(play, "a task", made.speaks.delay("WORD"))
    await said(play, "result_serializer", made.pair.delay(1, 2))
    play.say("result_serializer: type", type(made.pair.delay(1, 2).get(timeout=10)[1]).__name__)
    await said(play, "worker_direct", made.ordered.apply_async(("direct",), queue=worker_direct("w2@semantics")))
    held = made.ordered.delay("held", gate="formats")
    await play.stage.waiting("formats")
    # Celery fetches one more than it runs: that one comes first, whatever its priority.
    fetched = made.ordered.delay("fetched")
    sent = [made.ordered.apply_async((f"priority {number}",), priority=number) for number in (9, 6, 0, 3)]
    play.stage.open("formats")
    for result in (held, fetched, *sent):
        await until("all turns", result.ready)
    turns = [note["name"] for note in play.stage.notes("turn")]
    play.say("turns of priorities", " ".join(turn for turn in turns if turn.startswith("priority")))
    play.say("exit code", str(await worker.stop()))
    log_told(play, "lines", worker, r"WORD|Task .* succeeded")


@scene("a module that runs itself", own=True)
async def itself(play):
    """`python selfrun.py worker` under Celery, `-A selfrun` here; setup_logging by the app."""
    selfrun = imported("selfrun")
    worker = await play.stage.worker("selfrun", "w3", "-l", "INFO", "-c", "1",
                                     launch=[sys.executable, "selfrun.py"]).ready()
    await said(play, "a task", selfrun.add.delay(2, 3))
    play.say("its name", selfrun.add.name)
    play.say("exit code", str(await worker.stop()))
    log_told(play, "lines of its own logging", worker, r"^OWN.*(adding|succeeded|received)")


@scene("Flask", own=True)
async def flask(play):
    """A task class with the context of a Flask app; `-A module:attribute`."""
    if importlib.util.find_spec("flask") is None:
        play.missing("flask")
        return
    flaskapp = imported("flaskapp")
    worker = await play.stage.worker("flaskapp:celery_app", "w4", "-l", "INFO", "-c", "1").ready()
    await said(play, "a task", flaskapp.shop.delay())
    play.say("exit code", str(await worker.stop()))


@scene("Django", own=True)
async def django(play):
    """Settings with a prefix, autodiscovery, models, transactions."""
    if importlib.util.find_spec("django") is None:
        play.missing("django")
        return
    app = imported("djangosite.celery").app
    database = {"SEMANTICS_DB": str(play.stage.work / "django.sqlite")}
    worker = await play.stage.worker("djangosite", "w5", "-l", "INFO", "-c", "1", **database).ready()
    await said(play, "models and settings", app.send_task("djangosite.orders.tasks.place", ("milk",)))
    result = app.send_task("djangosite.orders.tasks.later", ("bread",))
    await said(play, "delay_on_commit", result)
    await until("what was sent on commit", lambda: "bread" in worker.text())
    play.say("exit code", str(await worker.stop()))
    log_told(play, "lines", worker, r"'(milk|bread)'")
