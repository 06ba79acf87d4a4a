"""Serializers and compressions."""

import datetime
import decimal
import uuid

from .celery import app


@app.task(bind=True)
def types(self, value):
    """What arrived, and how."""
    return [type(value).__name__, repr(value), self.request.delivery_info["routing_key"],
            self.request.properties.get("priority"), self.request.headers]


@app.task
def gives(what):
    """A result of a kind."""
    return {
        "null": None, "number": 1.5, "text": "ü\u2028\U0001f600", "list": [1, [2, {}]], "tuple": (1, 2),
        "time": datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.timezone.utc),
        "decimal": decimal.Decimal("1.10"), "uuid": uuid.UUID(int=1), "bytes": b"\x00\xff",
        "keys": {1: 2}, "set": {3}, "large": 2**70,
    }[what]
