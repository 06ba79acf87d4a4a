"""Plays scenes against one kind of worker and writes the transcript: `python -m kit.drive OPTIONS`."""

import argparse
import asyncio
import contextlib
import fnmatch
import gc
import json
import os
import pathlib
import sys
import time
import traceback

#: Scenes that play at the same time on the common worker.
AT_ONCE = 6
#: Scenes with workers of their own beside them.
ALONE_AT_ONCE = 2
SCENE_SECONDS = 80


def arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=("stock", "celeriac"))
    parser.add_argument("url")
    parser.add_argument("work", type=pathlib.Path)
    parser.add_argument("--celeriac")
    parser.add_argument("--scene", action="append", default=[])
    return parser.parse_args()


async def play(one, function, report):
    """Plays one scene; what goes wrong is told in its transcript."""
    began = time.monotonic()
    error = None
    try:
        await asyncio.wait_for(function(one), SCENE_SECONDS)
    except Exception:  # the transcript says it; the next scene is another matter
        error = traceback.format_exc()
    report.append((one, error, time.monotonic() - began))


async def play_together(stage, chosen, report):
    """Scenes on one worker, some at a time."""
    from kit.play import Play

    worker = stage.worker("proj", "w1", "-l", "INFO", "-c", "6", "-E", "-Q", "celery,other")
    await worker.ready()
    room, dying = asyncio.Semaphore(AT_ONCE), asyncio.Lock()

    async def take(name, function, deaths):
        async with dying if deaths else contextlib.nullcontext(), room:
            await play(Play(name, stage, worker), function, report)

    await asyncio.gather(*(take(*one) for one in chosen))
    await worker.stop()


async def play_alone(stage, chosen, report):
    """Scenes with workers of their own, each with queues of its own, some at a time."""
    from kit.play import Play

    room = asyncio.Semaphore(ALONE_AT_ONCE)

    async def take(name, function):
        async with room:
            await play(Play(name, stage, None), function, report)

    await asyncio.gather(*(take(*one) for one in chosen))


async def main():
    options = arguments()
    os.environ["SEMANTICS_URL"] = options.url
    here = pathlib.Path(__file__).resolve().parents[1]
    sys.path[:0] = [str(here / "apps")]
    from kit.play import scenes
    from kit.stage import Stage
    import scenes as _all  # noqa: F401: importing registers them

    # redis-py's PubSub lock is not reentrant: a collection inside it that meets a result whose finalizer
    # unsubscribes (celery/result.py, __del__) stands still for ever.
    gc.disable()
    stage = Stage(options.kind, options.url, options.work, options.celeriac)
    chosen = [(name, function, own, deaths) for name, (function, own, deaths) in scenes().items()
              if not options.scene or any(fnmatch.fnmatch(name, glob) for glob in options.scene)]
    report = []
    problem = None
    listening = asyncio.create_task(stage.listen())
    try:
        # Those with deaths wait for each other: they begin first.
        together = sorted(((name, function, deaths) for name, function, own, deaths in chosen if not own),
                          key=lambda one: not one[2])
        alone = [(name, function) for name, function, own, _ in chosen if own]
        jobs = [play_alone(stage, alone, report)]
        if together:
            jobs.append(play_together(stage, together, report))
        await asyncio.gather(*jobs)
    except Exception:
        problem = traceback.format_exc()
    finally:
        listening.cancel()
        for worker in stage.workers:
            if worker.process.poll() is None:
                worker.process.kill()
                worker.process.wait()
    stage.drain()
    write(options.work / "transcript.json", report, problem, scenes())


def write(path, report, problem, scenes_by_name):
    """The transcript as JSON."""
    found = {}
    order = list(scenes_by_name)
    for one, error, seconds in sorted(report, key=lambda told: order.index(told[0].name)):
        if error is None:
            try:
                one.finish()
            except Exception:
                error = traceback.format_exc()
        found[one.name] = {"features": one.features, "error": error, "lacks": one.lacks, "seconds": round(seconds, 2)}
    path.write_text(json.dumps({"scenes": found, "problem": problem}, indent=1, ensure_ascii=False))


if __name__ == "__main__":
    asyncio.run(main())
    # Finalizers of results would speak to Redis while Python ends.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)
