"""Reads what other schedulers have kept, for `celeriac schedule import`; writes nothing there.

One line of JSON for each entry or job, with what it is or why it cannot be told; `{"failed", "hint", "away"}` if
there is nothing to be read. Both files are pickles: reading them runs what they name.
"""

from __future__ import annotations

import json
import os
import sys


class Unreadable(Exception):
    """Why nothing can be read, what to do, and whether a server does not answer."""

    def __init__(self, text: str, hint: str | None = None, away: bool = False):
        super().__init__(text)
        self.hint = hint
        self.away = away


def main(asked: dict, answer) -> int:
    """Writes the lines; 1 if there is nothing to be read."""
    sys.path.insert(0, os.getcwd())
    try:
        if asked["from"] == "celerybeat":
            from celeriac_child import imports_celerybeat as reader
        else:
            from celeriac_child import imports_apscheduler as reader
        for line in reader.read(asked):
            answer.write(json.dumps(line, allow_nan=False) + "\n")
    except Unreadable as error:
        answer.write(json.dumps({"failed": str(error), "hint": error.hint, "away": error.away}) + "\n")
        return 1
    finally:
        answer.flush()
    return 0


def instant(moment) -> str | None:
    """A `datetime` with its offset; one without is in UTC, as Celery has it."""
    if moment is None:
        return None
    text = moment.isoformat()
    return text + "+00:00" if moment.tzinfo is None else text
