"""What the scripts of all libraries begin with."""

import time

SECONDS = 25
TICK = 0.02


def end(result):
    """How a task ended, in words."""
    try:
        return "returned", result.get(timeout=SECONDS, interval=TICK)
    except Exception as error:
        return type(error).__name__, str(error)


def until(what, condition):
    """Waits for a condition and gives its value."""
    deadline = time.monotonic() + SECONDS
    while not (value := condition()):
        assert time.monotonic() < deadline, f"after {SECONDS} s still not: {what}"
        time.sleep(TICK)
    return value
