"""The `celeriac` program, as a Python environment has it: where it is, and its version.

The program does all the work; this package is how Python finds it (`python -m celeriac`).
"""

from __future__ import annotations

from ._program import find_celeriac_bin

__all__ = ["__version__", "find_celeriac_bin"]

__version__: str


def __getattr__(name: str) -> str:
    # Read when it is asked for: `python -m celeriac` has no use for it.
    if name == "__version__":
        from importlib.metadata import version

        return version("celeriac")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
