"""What `celeriac doctor` reads in an app's Python code: tasks, settings, calls, and known mistakes."""

from __future__ import annotations

import ast
import os

from . import doctor_traps

#: Depth at which a nested value is no longer read but shown.
_DEPTH_MAX = 6
#: Where settings of Celery begin, for files that are Celery's configuration by their name only.
_SPACES = ("task_", "worker_", "broker_", "result_", "beat_", "accept_", "event_", "imports", "include")
_SENDERS = {"apply_async", "send_task", "set", "signature", "retry"}
_SENT = ("priority", "queue", "countdown", "eta", "expires")


class Module:
    """A file of Python code."""

    def __init__(self, path: str, tree: ast.Module):
        self.path = path
        self.tree = tree
        name = path[: -len(".py")].replace(os.sep, ".")
        self.name = name[: -len(".__init__")] if name.endswith(".__init__") else name
        base = os.path.basename(path)
        folders = path.split(os.sep)[:-1]
        #: Tests call tasks directly, and on purpose.
        self.is_test = base.startswith(("test_", "conftest")) or "tests" in folders or "test" in folders
        self.parents = {child: node for node in ast.walk(tree) for child in ast.iter_child_nodes(node)}

    def function_of(self, node: ast.AST) -> ast.AST | None:
        """The innermost function around a node."""
        node = self.parents.get(node)
        while node is not None and not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            node = self.parents.get(node)
        return node

    def outer_functions_of(self, node: ast.AST):
        """All functions around a node, the innermost first."""
        node = self.function_of(node)
        while node is not None:
            yield node
            node = self.function_of(node)


class Task:
    """A function that a decorator makes a task."""

    def __init__(self, module: Module, function: ast.AST, options: dict):
        self.module = module
        self.function = function
        self.options = options
        name = options.get("name")
        self.name = name if isinstance(name, str) else f"{module.name}.{function.name}"

    @property
    def is_bound(self) -> bool:
        return self.options.get("bind") is True

    def frame(self) -> dict:
        own = {name: value for name, value in self.options.items() if name in _TOLD}
        line = self.function.lineno
        return {**own, "name": self.name, "file": self.module.path, "line": line}


_TOLD = {
    "queue",
    "priority",
    "acks_late",
    "reject_on_worker_lost",
    "time_limit",
    "soft_time_limit",
    "default_retry_delay",
}


class Reading:
    """What stands in the code of a folder."""

    def __init__(self, folder):
        self.folder = folder
        self.modules = [module for module in folder.modules if not module.is_test]
        self.all_tasks = [task for module in self.modules for task in _tasks_of(module)]
        self.settings: dict[str, dict] = {}
        self._entries: dict[str, dict] = {}
        for module in self.modules:
            self._read_settings(module)
        doctor_traps.find(self)

    def tasks(self) -> list[dict]:
        """Every task with its place and options."""
        return [task.frame() for task in self.all_tasks]

    def entries(self) -> dict:
        """The places of beat's entries."""
        return self._entries

    def calls(self) -> list[dict]:
        """Calls that send a task with options, where these are written out."""
        found = []
        for module in self.modules:
            for node in ast.walk(module.tree):
                if not isinstance(node, ast.Call) or attribute_of(node.func) not in _SENDERS:
                    continue
                options = {word.arg: literal(word.value) for word in node.keywords if word.arg in _SENT}
                if options:
                    found.append({**options, "file": module.path, "line": node.lineno})
        return found

    def variables_read(self) -> dict:
        """The variables of the environment that the code reads; for each None, or the unused functions that
        alone do."""
        read: dict[str, set | None] = {}
        used = self._names_used()
        for module in self.modules:
            for node in ast.walk(module.tree):
                if not (isinstance(node, ast.Constant) and isinstance(node.value, str)):
                    continue
                if not node.value.isupper():
                    continue
                dead = None
                function = module.function_of(node)
                if function is not None and function.name not in used:
                    dead = function.name
                known = read.setdefault(node.value, set())
                if dead is None:
                    read[node.value] = None
                elif known is not None:
                    known.add(f"{dead} ({module.path}:{function.lineno})")
            for name in _fields_of_settings(module):
                read[name.upper()] = None
        return read

    def _names_used(self) -> set[str]:
        used = set()
        for module in self.modules:
            for node in ast.walk(module.tree):
                if isinstance(node, ast.Attribute):
                    used.add(node.attr)
                elif isinstance(node, ast.Name):
                    used.add(node.id)
        return used

    def _read_settings(self, module: Module) -> None:
        prefix, is_config = self._configured(module)
        for node in ast.walk(module.tree):
            if isinstance(node, (ast.Assign, ast.AnnAssign)) and node.value is not None:
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                for target in targets:
                    self._read_assignment(module, node, target, prefix, is_config)
            elif isinstance(node, ast.Call):
                self._read_call(module, node)

    def _read_assignment(self, module, node, target, prefix, is_config) -> None:
        if isinstance(target, ast.Attribute) and attribute_of(target.value) == "conf":
            self._take(module, target.attr, node.value, node.lineno)
        if not isinstance(target, ast.Name) or module.parents.get(node) is not module.tree:
            return
        name = target.id
        if prefix:
            if name.startswith(prefix):
                self._take(module, name[len(prefix) :].lower(), node.value, node.lineno)
        elif name.islower() and not name.startswith("_"):
            if is_config or ("celery" in module.path and name.startswith(_SPACES)):
                self._take(module, name, node.value, node.lineno)

    def _read_call(self, module: Module, node: ast.Call) -> None:
        called = attribute_of(node.func)
        if called == "update" and attribute_of(getattr(node.func, "value", None)) == "conf":
            for word in node.keywords:
                if word.arg:
                    self._take(module, word.arg, word.value, word.value.lineno)
            for argument in node.args:
                for key, value in _items(argument):
                    self._take(module, key.value, value, key.lineno)
        elif called == "Celery":
            for word in node.keywords:
                name = {"broker": "broker_url", "backend": "result_backend"}.get(word.arg, word.arg)
                if name in ("broker_url", "result_backend", "include"):
                    self._take(module, name, word.value, word.value.lineno)

    def _configured(self, module: Module) -> tuple[str, bool]:
        """The prefix of Celery's settings in a module, and whether all of it is settings."""
        for other in self.modules:
            for node in ast.walk(other.tree):
                if not isinstance(node, ast.Call) or attribute_of(node.func) != "config_from_object":
                    continue
                named = literal(node.args[0]) if node.args else None
                spaces = [literal(word.value) for word in node.keywords if word.arg == "namespace"]
                if named == "django.conf:settings" and "settings" in module.name:
                    return f"{spaces[0]}_" if spaces else "CELERY_", False
                if isinstance(named, str) and named.partition(":")[0] == module.name:
                    return f"{spaces[0]}_" if spaces else "", True
        return "", False

    def _take(self, module: Module, name: str, value: ast.AST, line: int) -> None:
        place = {"file": module.path, "line": line}
        self.settings[name] = {"value": literal(value), **place}
        if name == "beat_schedule":
            for key, _ in _items(value):
                self._entries[key.value] = {"file": module.path, "line": key.lineno}


def _tasks_of(module: Module):
    celerys = {
        alias.asname or alias.name
        for node in ast.walk(module.tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "celery"
        for alias in node.names
    }
    for node in ast.walk(module.tree):
        if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            continue
        for decorator in node.decorator_list:
            call = decorator if isinstance(decorator, ast.Call) else None
            function = call.func if call else decorator
            is_task = isinstance(function, ast.Attribute) and function.attr == "task"
            is_task |= isinstance(function, ast.Name) and function.id in celerys & {"shared_task", "task"}
            if is_task:
                words = call.keywords if call else []
                yield Task(module, node, {word.arg: literal(word.value) for word in words if word.arg})
                break


def _fields_of_settings(module: Module):
    """Fields of pydantic's settings, which are read from variables of the same name."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.ClassDef) and any("Settings" in (attribute_of(b) or "") for b in node.bases):
            for part in node.body:
                if isinstance(part, ast.AnnAssign) and isinstance(part.target, ast.Name):
                    yield part.target.id


def _items(node: ast.AST | None):
    """The items of a written dictionary whose keys are texts."""
    if isinstance(node, ast.Tuple) and len(node.elts) == 1:
        # A line of a call that was copied out of it keeps its comma.
        node = node.elts[0]
    if isinstance(node, ast.Dict):
        for key, value in zip(node.keys, node.values):
            if isinstance(key, ast.Constant) and isinstance(key.value, str):
                yield key, value


def attribute_of(node: ast.AST | None) -> str | None:
    """`c` of `a.b.c` and of `c`."""
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else None


def literal(node: ast.AST, depth: int = 0):
    """The value that is written; what has to be computed is `{"repr": …}`."""
    if isinstance(node, ast.Constant) and isinstance(node.value, (str, int, float, bool, type(None))):
        return node.value
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        value = literal(node.operand, depth)
        return -value if isinstance(value, (int, float)) else _shown(node)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult):
        left, right = literal(node.left, depth), literal(node.right, depth)
        are_numbers = all(isinstance(value, (int, float)) for value in (left, right))
        return left * right if are_numbers else _shown(node)
    if depth < _DEPTH_MAX:
        if isinstance(node, ast.Tuple) and len(node.elts) == 1 and isinstance(node.elts[0], ast.Dict):
            return literal(node.elts[0], depth)
        if isinstance(node, (ast.List, ast.Tuple)):
            return [literal(item, depth + 1) for item in node.elts]
        if isinstance(node, ast.Dict):
            return {key.value: literal(value, depth + 1) for key, value in _items(node)}
    return _shown(node)


def _shown(node: ast.AST) -> dict:
    return {"repr": ast.unparse(node)}
