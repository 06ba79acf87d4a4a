"""The page that a child shares with the worker: what runs, since when, how much is done."""

from __future__ import annotations

import mmap

PAGE_BYTES = 4096


class Page:
    """Little-endian words `<QdQQ`: running tag, when it began, how many ended, tag over its soft limit.

    Words are written through a cast view, which stores eight bytes at once: `struct` would store them one
    by one, and the worker could read half a tag.
    """

    def __init__(self, descriptor: int):
        view = memoryview(mmap.mmap(descriptor, PAGE_BYTES))
        self._words = view.cast("Q")
        self._times = view.cast("d")

    def begin(self, tag: int, now: float) -> None:
        """Shows that the run began; its time first, so that whoever sees the tag sees its time."""
        self._times[1] = now
        self._words[0] = tag

    def end(self) -> None:
        """Shows that nothing runs and one more ended."""
        self._words[2] += 1
        self._words[0] = 0

    @property
    def soft_target(self) -> int:
        """The tag that the worker wants to be told of its soft limit."""
        return self._words[3]
