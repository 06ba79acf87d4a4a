"""Reads the files of an app's folder for `celeriac doctor`, without running them.

Uses the standard library only, and works where the app, or Celery, cannot be imported. What it finds has a
code; `celeriac-core/src/doctor/codes.rs` says what each means.
"""

from __future__ import annotations

import ast
import os
import sys
import warnings

from . import doctor_code, doctor_files

#: Files that are read, bytes of one, and findings; what is beyond is counted, not read.
FILES_MAX = 4000
FILE_BYTES_MAX = 1 << 20
FINDINGS_MAX = 1000
_SKIPPED = {"node_modules", "site-packages", "dist-packages", "build", "dist", "target", "migrations"}
#: Modules of the standard library that nothing imports by accident.
_HARMLESS = {"test", "this", "antigravity", "idlelib", "turtledemo", "lib2to3"}


class Folder:
    """The app's files: their paths relative to the folder, with what stands in them."""

    def __init__(self, root: str):
        self.root = root
        self.modules: list[doctor_code.Module] = []
        self.texts: list[doctor_files.Text] = []
        self.findings: list[dict] = []
        self.read = 0
        self.cut = False
        for path in self._paths():
            self._take(path)

    def find(self, code: str, file: str, line: int | None, what: str, fix: str) -> None:
        """Notes a finding."""
        if len(self.findings) < FINDINGS_MAX:
            finding = {"code": code, "file": file, "line": line, "what": what, "fix": fix}
            if finding not in self.findings:
                self.findings.append(finding)
        else:
            self.cut = True

    def _paths(self):
        for place, folders, names in os.walk(self.root):
            folders[:] = sorted(name for name in folders if self._is_entered(place, name))
            for name in sorted(names):
                yield os.path.relpath(os.path.join(place, name), self.root)

    @staticmethod
    def _is_entered(place: str, name: str) -> bool:
        path = os.path.join(place, name)
        is_own = not name.startswith((".", "__")) and name not in _SKIPPED
        return is_own and not os.path.exists(os.path.join(path, "pyvenv.cfg"))

    def _take(self, path: str) -> None:
        is_code = path.endswith(".py")
        if not is_code and not doctor_files.is_read(path):
            return
        if self.read >= FILES_MAX:
            self.cut = True
            return
        self.read += 1
        try:
            full = os.path.join(self.root, path)
            if os.path.getsize(full) > FILE_BYTES_MAX:
                self.cut = True
                return
            with open(full, "rb") as file:
                data = file.read()
        except OSError:
            self.cut = True
            return
        if is_code:
            self._take_module(path, data)
        else:
            self.texts.append(doctor_files.Text(path, data.decode("utf-8", "replace")))

    def _take_module(self, path: str, data: bytes) -> None:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                tree = ast.parse(data, path)
            self.modules.append(doctor_code.Module(path, tree))
        except (SyntaxError, ValueError, RecursionError) as error:
            line = getattr(error, "lineno", None)
            what = f"This Python ({sys.version_info[0]}.{sys.version_info[1]}) cannot read the file: {error}."
            self.find("D-CODE-UNREAD", path, line, what, "Nothing in it was checked; mend it first.")


def examine(root: str) -> dict:
    """What stands in the files below a folder, and what is wrong with it."""
    folder = Folder(root)
    _find_shadows(folder)
    code = doctor_code.Reading(folder)
    files = doctor_files.Reading(folder)
    doctor_files.find_variables(folder, files.variables, code.variables_read(), code.settings)
    return {
        "findings": folder.findings,
        "settings": code.settings,
        "entries": code.entries(),
        "tasks": code.tasks(),
        "calls": code.calls(),
        "commands": files.commands,
        "files": folder.read,
        "cut": folder.cut,
    }


def is_standard(name: str) -> bool:
    """Whether a module of the standard library has this name."""
    return name in getattr(sys, "stdlib_module_names", sys.builtin_module_names) and name not in _HARMLESS


def _find_shadows(folder: Folder) -> None:
    seen = set()
    for module in folder.modules:
        top, _, rest = module.path.replace(os.sep, "/").partition("/")
        name = top[:-3] if not rest else top
        if name in seen or not is_standard(name):
            continue
        seen.add(name)
        kind = "package" if rest else "module"
        new = f"{name}_app" if rest else f"{name}_app.py"
        folder.find(
            "D-APP-SHADOW",
            module.path,
            1,
            f"The {kind} {name} has the name of a module of Python's standard library.",
            f"Rename {top} to {new}, for example, and keep the names of its tasks with name=….",
        )
