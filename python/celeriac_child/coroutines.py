"""Tasks that are `async def`: their coroutines run on one event loop that lives as long as the process.

Celery's tracer is one synchronous call, so it gets a function that returns when the coroutine has ended.
Whoever calls the task in other ways gets the coroutine, as without us.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import threading

from celery import _state

from .turn import CURRENT

#: How coroutines are waited for; None leaves them to the caller, as Celery does.
_runner = None


def is_coroutine(task) -> bool:
    """Whether a task is an `async def`."""
    return inspect.iscoroutinefunction(inspect.unwrap(task.run))


def adapt(app) -> None:
    """Gives every task that is a coroutine a `run` that a tracer can call. To be called once."""
    for task in app.tasks.values():
        if is_coroutine(task):
            # app/autoretry.py:add_autoretry_behaviour has its `run` call this one.
            name = "_orig_run" if hasattr(task, "_orig_run") else "run"
            setattr(task, name, _synchronous(task, getattr(task, name)))


def use(runner) -> None:
    """From now on `runner` waits for coroutines."""
    global _runner
    _runner = runner


def _synchronous(task, run):
    @functools.wraps(run)
    def synchronous(*args, **kwargs):
        coroutine = run(*args, **kwargs)
        turn = CURRENT.get()
        traced = turn is not None and turn.limit.coroutine is None and not task.request.called_directly
        if not traced or _runner is None or not inspect.iscoroutine(coroutine):
            return coroutine
        return _runner.wait(coroutine, turn)

    return synchronous


class Here:
    """Runs a coroutine in the thread that waits for it: one after another."""

    def __init__(self):
        self._loop = None

    def wait(self, coroutine, turn):
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
        guarded = turn.limit.coroutine = Guarded(coroutine, self._loop)
        try:
            return self._loop.run_until_complete(guarded.run())
        except Exited as exited:
            raise exited.error from None
        finally:
            turn.limit.coroutine = None


class Beside:
    """Runs many coroutines at once, on a loop in a thread of its own; each tracer waits in its thread.

    `prepare` is called in the loop's thread before the first.
    """

    def __init__(self, prepare):
        self._prepare = prepare
        self._loop = None
        self._lock = threading.Lock()

    def wait(self, coroutine, turn):
        guarded = turn.limit.coroutine = Guarded(coroutine, self._started())
        try:
            return asyncio.run_coroutine_threadsafe(guarded.run(), guarded.loop).result()
        except Exited as exited:
            raise exited.error from None
        finally:
            turn.limit.coroutine = None

    def _started(self):
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                threading.Thread(target=self._serve, name="celeriac-loop", daemon=True).start()
            return self._loop

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._prepare()
        self._loop.run_forever()


class Exited(Exception):
    """A coroutine raised what would end its loop."""

    def __init__(self, error: BaseException):
        super().__init__(error)
        self.error = error


class Guarded:
    """Drives a coroutine, and raises in it what the worker asks for.

    asyncio can only cancel. A cancellation that was asked for by `strike` becomes the exception that it was
    given, at the place where the coroutine waits, and the coroutine may go on after it.
    """

    def __init__(self, coroutine, loop):
        self.loop = loop
        #: Whether code of the coroutine runs at this moment.
        self.stepping = False
        self._coroutine = coroutine
        self._task = None
        self._error = None

    def strike(self, error: BaseException) -> None:
        """In the loop's thread: raises `error` in the coroutine."""
        self._error = error
        if self._task is not None:
            self._task.cancel()

    async def run(self):
        self._task = asyncio.current_task()
        if self._error is not None:
            self._task.cancel()
        try:
            return await self
        except (SystemExit, KeyboardInterrupt) as error:
            raise Exited(error) from None
        finally:
            self._task = None

    def __await__(self):
        value = error = None
        while True:
            self.stepping = True
            try:
                awaited = self._coroutine.send(value) if error is None else self._coroutine.throw(error)
            except StopIteration as stop:
                return stop.value
            finally:
                self.stepping = False
            value = error = None
            try:
                value = yield awaited
            except asyncio.CancelledError as cancelled:
                error, self._error = self._error or cancelled, None
                if error is not cancelled and hasattr(self._task, "uncancel"):
                    self._task.uncancel()
            except BaseException as other:
                error = other


def identify(app) -> None:
    """Makes `self.request` and `current_task` those of the turn, in whichever thread its code runs.

    celery/utils/threads.py of 5.2 to 5.7: a stack is kept by what its `__ident_func__` says.
    """
    stacks = [_state._task_stack, *(task.request_stack for task in app.tasks.values())]
    for stack in stacks:
        usual = stack.__ident_func__
        if usual.__name__ != "of_turn":
            stack.__ident_func__ = _of_turn(usual)


def _of_turn(usual):
    def of_turn():
        return CURRENT.get() or usual()

    return of_turn
