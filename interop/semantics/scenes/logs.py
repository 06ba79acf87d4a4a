"""The log: what tasks print, and how Celery writes it."""

from kit.play import scene
from kit.stage import until
from proj import logs


async def said(play, label, task):
    """Plays a task with a word of its own, and tells the lines that hold it."""
    word = f"WORD{len(play.features)}{label.replace(' ', '')}"
    result = task.delay(word)
    await until(label, result.ready)
    play.afterwards(lambda: play.features.__setitem__(label, "\n".join(
        line.replace(word, "WORD") for line in play.worker.lines(word)
        if "] received" not in line) or "nothing"))


@scene("log")
async def lines(play):
    """Task logger, root logger, redirected output, root hijack."""
    await said(play, "task logger", logs.speaks)
    await said(play, "library and root loggers", logs.library)
    await said(play, "print", logs.prints)
    await said(play, "logger.exception", logs.traces)
    await said(play, "warnings", logs.warns)
    result = logs.handlers.delay()
    await until("handlers", result.ready)
    play.say("handlers in a task", result.get(timeout=10))
    play.afterwards(lambda: play.say("root hijack: lines of the handler that was there before",
                                     len(play.worker.lines("BEFORE "))))
