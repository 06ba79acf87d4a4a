"""Imports the package `celeriac_child` from texts in memory, as the worker sent them.

`boot.py` executes this text in `__main__`. It parses on any Python, so that one which is too old is refused
with a sentence.
"""

import json
import os
import struct
import sys

#: The versions of Python that the package is written for: from, and to.
PYTHON_FROM = (3, 9)
PYTHON_TO = (3, 13)


class Sources:
    """A finder and loader for the modules among `files`, texts by path (`celeriac_child/frames.py`)."""

    def __init__(self, files):
        from importlib.machinery import ModuleSpec

        self.files = files
        self.spec = ModuleSpec

    def path_of(self, name):
        """The path of a module among the texts, or None."""
        base = name.replace(".", "/")
        for path in (base + "/__init__.py", base + ".py"):
            if path in self.files:
                return path
        return None

    def find_spec(self, name, path=None, target=None):
        """The finder's half, see `importlib.abc.MetaPathFinder`."""
        origin = self.path_of(name)
        if origin is None:
            return None
        return self.spec(name, self, origin=origin, is_package=origin.endswith("/__init__.py"))

    def create_module(self, spec):
        """The loader's half: the default module."""
        return None

    def exec_module(self, module):
        """The loader's half: runs the text."""
        origin = module.__spec__.origin
        exec(compile(self.files[origin], origin, "exec", dont_inherit=True), module.__dict__)

    def get_source(self, name):
        """Lets a traceback show the lines of the text."""
        return self.files[self.path_of(name)]


def refuse(control, kind, text, hint, trace):
    """Sends `failed` and ends."""
    frame = {"op": "failed", "kind": kind, "text": text, "hint": hint, "traceback": trace}
    data = json.dumps(frame).encode("ascii")
    os.write(control, struct.pack(">I", len(data)) + data)
    os._exit(1)


def main(start):
    """Takes the control socket from standard input and becomes the template. Does not return."""
    control = os.dup(0)
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.close(null)
    if not PYTHON_FROM <= sys.version_info[:2] <= PYTHON_TO:
        refuse(
            control,
            "python",
            "%s is Python %d.%d; celeriac runs apps on Python %d.%d to %d.%d."
            % ((sys.executable,) + tuple(sys.version_info[:2]) + PYTHON_FROM + PYTHON_TO),
            "Start the worker with the Python of the app's own virtual environment.",
            None,
        )
    try:
        sys.meta_path.insert(0, Sources(start.pop("files")))
        from celeriac_child import template
    except BaseException as error:
        import traceback

        text = "The part of celeriac that runs in Python cannot start: %s: %s." % (
            type(error).__name__,
            error,
        )
        refuse(control, "error", text, None, traceback.format_exc())
    template.main(control, start)
