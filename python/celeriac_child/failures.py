"""Says why an app could not be loaded, and whose fault it is."""

from __future__ import annotations

import os
import sys
import traceback

#: Code between the user's file and the shim, which a reader need not see.
_PASSED_THROUGH = (
    "celery/app/utils.py",
    "celery/utils/imports.py",
    "kombu/utils/imports.py",
    "celery/loaders/base.py",
    "celery/fixups/django.py",
    "celery/local.py",
    "importlib/__init__.py",
)


class LoadFailure(Exception):
    """The app cannot be run; holds the members of `failed`."""

    def __init__(self, kind: str, text: str, hint: str | None = None, trace: str | None = None):
        super().__init__(text)
        self.kind = kind
        self.text = text
        self.hint = hint
        self.trace = trace

    def frame(self) -> dict:
        return {
            "op": "failed",
            "kind": self.kind,
            "text": self.text,
            "hint": self.hint,
            "traceback": self.trace,
        }


def is_hidden(filename: str) -> bool:
    """Whether a traceback frame belongs to the shim or to the import machinery."""
    path = filename.replace(os.sep, "/")
    return (
        path.startswith(("<frozen importlib", "celeriac_child/"))
        or path == "<string>"
        or path.endswith(_PASSED_THROUGH)
    )


def told_traceback(error: BaseException) -> str:
    """The traceback of an error and of what caused it, without hidden frames."""
    told = traceback.TracebackException.from_exception(error)
    seen = set()
    chain = [told]
    while chain:
        one = chain.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        one.stack = traceback.StackSummary.from_list(
            [frame for frame in one.stack if not is_hidden(frame.filename)]
        )
        chain += [one.__cause__, one.__context__]
    return "".join(told.format())


def place_of(error: BaseException) -> str | None:
    """`tasks.py, line 3`: the innermost line of the user's own code, None when there is none."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{_short(error.filename)}, line {error.lineno}"
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if not is_hidden(frame.filename) and not _is_library(frame.filename):
            return f"{_short(frame.filename)}, line {frame.lineno}"
    return None


def is_ours(error: BaseException) -> bool:
    """Whether the error arose in the shim itself."""
    frames = traceback.extract_tb(error.__traceback__)
    return bool(frames) and frames[-1].filename.startswith("celeriac_child/")


def of_app(error: BaseException, doing: str) -> LoadFailure:
    """An error that the user's code, or Celery on its behalf, raised while `doing`."""
    if isinstance(error, LoadFailure):
        return error
    if is_ours(error):
        return of_shim(error)
    place = place_of(error)
    where = f"{place}: " if place else ""
    trace = told_traceback(error)
    if isinstance(error, ModuleNotFoundError) and error.name:
        text = f"{where}imports {error.name}, which this Python does not have."
        hint = _shadow_hint(error.name) or (
            f"Install it for {sys.executable}, or start the worker with the Python of the app's own "
            "virtual environment."
        )
        return LoadFailure("app", f"While {doing}, {text}", hint, trace)
    if isinstance(error, SystemExit):
        text = f"While {doing}, {where}the app called sys.exit({error.code!r})."
        return LoadFailure("app", text, "A module must not exit when it is imported.", trace)
    if isinstance(error, SyntaxError):
        return LoadFailure("app", f"While {doing}, {where}{type(error).__name__}: {error.msg}.", None, trace)
    hint = _shadow_hint(error.name) if isinstance(error, ImportError) and error.name else None
    text = f"While {doing}, {where}{type(error).__name__}: {_sentence(error)}"
    return LoadFailure("app", text, hint, trace)


def of_celery(error: BaseException, version: str) -> LoadFailure:
    """Celery is there, but does not work: the packages beside it do not fit."""
    text = (
        f"Celery {version} cannot be imported by {sys.executable}: {type(error).__name__}: {_sentence(error)}"
    )
    hint = "Install versions that fit together, as in the app's lock file."
    return LoadFailure("celery", text, hint, told_traceback(error))


def of_shim(error: BaseException) -> LoadFailure:
    """An error of this package."""
    text = f"The part of celeriac that runs in Python failed: {type(error).__name__}: {_sentence(error)}"
    trace = "".join(traceback.format_exception(type(error), error, error.__traceback__))
    return LoadFailure("error", text, "This is a fault of celeriac; please report it.", trace)


def shadowed(name: str) -> str | None:
    """The file or folder in the app's folder whose name another module already has."""
    folder = os.getcwd()
    for path in (os.path.join(folder, name + ".py"), os.path.join(folder, name)):
        if not os.path.exists(path) or (os.path.isdir(path) and not _holds_python(path)):
            continue
        if name in _standard_names():
            return path
        module = sys.modules.get(name)
        origin = getattr(module, "__file__", None)
        if origin and not os.path.abspath(origin).startswith(path):
            return path
    return None


def owner_of(name: str) -> str:
    """Who has a module name already."""
    if name in _standard_names() or _is_standard(getattr(sys.modules.get(name), "__file__", None)):
        return "a module of Python's standard library"
    return "an installed package"


def _standard_names():
    # Python 3.9 knows only those without a file.
    return getattr(sys, "stdlib_module_names", sys.builtin_module_names)


def _is_standard(path: str | None) -> bool:
    return bool(path) and path.startswith(os.path.dirname(os.__file__)) and "site-packages" not in path


def _shadow_hint(name: str) -> str | None:
    top = name.partition(".")[0]
    path = shadowed(top)
    if path is None:
        return None
    return (
        f"{_short(path)} has the name of {owner_of(top)}, so that one is imported instead. Rename the file."
    )


def _holds_python(path: str) -> bool:
    try:
        return any(entry.endswith(".py") for entry in os.listdir(path))
    except OSError:
        return False


def _is_library(filename: str) -> bool:
    """Whether a file belongs to an installed package or the standard library."""
    if filename.startswith("<frozen"):
        return True
    path = os.path.abspath(filename)
    return "site-packages" in path or "dist-packages" in path or path.startswith(os.path.dirname(os.__file__))


def _short(path: str) -> str:
    relative = os.path.relpath(path)
    return path if relative.startswith("..") else relative


def _sentence(error: BaseException) -> str:
    try:
        text = " ".join(str(error).split()) or "no message"
    except Exception:
        text = "no message"
    return text if text.endswith((".", "!", "?")) else text + "."
