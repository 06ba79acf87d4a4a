"""Text for `python -c`: takes the control socket from standard input and imports the package sent over it.

It parses on any Python, so that one which is too old is refused with a sentence. Nothing is imported
before the empty entry has left `sys.path`: a file of the app named `json.py` or `queue.py` would be taken.
"""
import sys

if sys.path and sys.path[0] == "":
    del sys.path[0]

import json
import os
import struct


def take(descriptor, count):
    data = b""
    while len(data) < count:
        piece = os.read(descriptor, min(count - len(data), 1 << 20))
        if not piece:
            os._exit(1)
        data += piece
    return data


def refuse(descriptor, kind, text, hint, trace):
    frame = {"op": "failed", "kind": kind, "text": text, "hint": hint, "traceback": trace}
    data = json.dumps(frame).encode("ascii")
    os.write(descriptor, struct.pack(">I", len(data)) + data)
    os._exit(1)


def boot():
    control = os.dup(0)
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.close(null)
    start = json.loads(take(control, struct.unpack(">I", take(control, 4))[0]).decode("utf-8"))
    version = "%d.%d" % sys.version_info[:2]
    if not (3, 9) <= sys.version_info[:2] <= (3, 13):
        refuse(
            control,
            "python",
            "%s is Python %s; celeriac runs apps on Python 3.9 to 3.13." % (sys.executable, version),
            "Start the worker with the Python of the app's own virtual environment.",
            None,
        )
    try:
        files = start.pop("files")
        namespace = {"__name__": "celeriac_child.sources"}
        exec(compile(files["celeriac_child/sources.py"], "celeriac_child/sources.py", "exec"), namespace)
        namespace["install"](files)
        from celeriac_child import template
    except BaseException as error:
        import traceback

        text = "The part of celeriac that runs in Python cannot start: %s: %s." % (type(error).__name__, error)
        refuse(control, "error", text, None, traceback.format_exc())
    template.main(control, start)


boot()
