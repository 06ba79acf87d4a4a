"""Text without what differs from run to run: identifiers, times, addresses, processes."""

import json
import re
import socket
import sys

_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_PATTERNS = [
    (re.compile(r"gen\d+@[\w.-]+"), "<client>"),
    (re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d([.,]\d+)?(\+\d\d:\d\d|Z)?"), "<time>"),
    (re.compile(r"ForkPoolWorker-\d+"), "ForkPoolWorker"),
    (re.compile(r"\bpid[:=]\d+"), "pid:<pid>"),
    (re.compile(r"0x[0-9a-f]{6,}"), "<address>"),
    (re.compile(r"(127\.0\.0\.1|localhost):\d+"), "<server>"),
    (re.compile(r"\bin [\d.]+(e-\d+)?s\b"), "in <seconds>s"),
    (re.compile(r"Job: \d+"), "Job: <number>"),
    (re.compile(r"seconds=[\d.e-]+"), "seconds=<seconds>"),
    (re.compile(re.escape(sys.prefix)), "<env>"),
    (re.compile(re.escape(sys.base_prefix)), "<python>"),
    (re.compile(re.escape(socket.gethostname())), "<host>"),
]
_places = []


def hide(path, word):
    """Paths of this run."""
    _places.append((str(path), word))


def plain(text, ids=None):
    """The text; with `ids`, identifiers keep the names that they have there."""
    for path, word in _places:
        text = text.replace(path, word)
    text = _UUID.sub(lambda found: (ids or {}).get(found[0], "<id>"), text)
    for pattern, word in _PATTERNS:
        text = pattern.sub(word, text)
    return text


def show(value):
    """A value, its mappings in the order of their keys."""
    return value if isinstance(value, str) else json.dumps(
        value, sort_keys=True, default=repr, ensure_ascii=False)
