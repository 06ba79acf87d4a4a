"""What a process has in hand: one delivery, from its frame to its `D`."""

from __future__ import annotations

from contextvars import ContextVar

#: The turn whose code runs. Threads that a task starts have none; coroutines of a task have its.
CURRENT: ContextVar = ContextVar("celeriac_turn", default=None)


class Turn:
    """One delivery in hand, and what belongs to it alone."""

    __slots__ = ("tag", "run", "limit", "storing", "documents")

    def __init__(self, tag: int, limit):
        self.tag = tag
        #: The run that it became; None for a delivery that was refused, and in the steward.
        self.run = None
        #: Raises what the worker asks for, see `limits`.
        self.limit = limit
        #: The task whose result is being stored.
        self.storing = None
        #: The documents that were stored, by task.
        self.documents = {}
