"""Mistakes in an app's code that `celeriac doctor` knows, each a function over what was read."""

from __future__ import annotations

import ast

_ERRORS = {"error", "failed", "failure"}
_TRUTHS = {"true", "false", "1", "0", "yes", "no", "on", "off"}
_USES_REQUEST = {"update_state", "request", "retry", "replace", "add_to_chord"}


def find(reading) -> None:
    """Looks for all of them."""
    for trap in (
        _bound_calls,
        _error_results,
        _waits_in_tasks,
        _coroutine_tasks,
        _autodiscover,
        _text_numbers,
        _truths,
    ):
        trap(reading)


def _bound_calls(reading) -> None:
    """A bound task that is called like a function has no request: no id, so nothing to update or retry."""
    bound = {task.function.name: task for task in reading.all_tasks if task.is_bound}
    for module in reading.modules:
        for node in _calls(module):
            task = bound.get(node.func.id) if isinstance(node.func, ast.Name) else None
            if task is None or not _is_seen(module, task):
                continue
            needs = sorted({part.attr for part in ast.walk(task.function) if _is_of_self(part, task)})
            if not needs:
                continue
            name = task.function.name
            reading.folder.find(
                "D-CODE-BOUND-CALL",
                module.path,
                node.lineno,
                f"{name} is a bound task and is called as a function: it runs without an id, and its "
                f"self.{needs[0]} ({task.module.path}:{task.function.lineno}) fails or acts on nothing.",
                f"Move the work into a plain function that both call, or send it with {name}.delay(…).",
            )


def _is_seen(module, task) -> bool:
    """Whether a name in a module is that task."""
    if module is task.module:
        return True
    return any(
        alias.name == task.function.name
        for node in ast.walk(module.tree)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    )


def _is_of_self(node: ast.AST, task) -> bool:
    arguments = task.function.args.args
    return (
        isinstance(node, ast.Attribute)
        and node.attr in _USES_REQUEST
        and isinstance(node.value, ast.Name)
        and bool(arguments)
        and node.value.id == arguments[0].arg
    )


def _error_results(reading) -> None:
    """A failure that is returned and not raised is a success to everybody who counts."""
    for task in reading.all_tasks:
        own = list(_returned_errors(task.function))
        for node in own:
            _tell_error(reading, task.module, node, task.name)
        if own:
            continue
        handed = {
            _name(node.value.func)
            for node in ast.walk(task.function)
            if isinstance(node, ast.Return) and isinstance(node.value, ast.Call)
        }
        called = {_name(node.func) for node in ast.walk(task.function) if isinstance(node, ast.Call)}
        for module in reading.modules:
            for function in ast.walk(module.tree):
                if not isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef)):
                    continue
                owner = module.parents.get(function)
                # A method counts where the task makes such an object.
                is_other = isinstance(owner, ast.ClassDef) and owner.name not in called
                if function.name in handed and not is_other:
                    for node in _returned_errors(function):
                        _tell_error(reading, module, node, task.name)


def _returned_errors(function: ast.AST):
    for node in ast.walk(function):
        if isinstance(node, ast.Return) and isinstance(node.value, ast.Dict):
            for key, value in zip(node.value.keys, node.value.values):
                if not (isinstance(key, ast.Constant) and isinstance(value, ast.Constant)):
                    continue
                is_error = key.value in ("status", "state") and value.value in _ERRORS
                if is_error or (key.value in ("success", "ok") and value.value is False):
                    yield node


def _tell_error(reading, module, node: ast.AST, task: str) -> None:
    reading.folder.find(
        "D-CODE-ERROR-RESULT",
        module.path,
        node.lineno,
        f"The task {task} returns a failure as a value: Celery notes SUCCESS, retries nothing, and counts "
        "no error.",
        'Raise an exception, or say it in celeriac.toml: failure_if = "$.status in [\'error\', \'failed\']" '
        "for this task.",
    )


def _waits_in_tasks(reading) -> None:
    """A task that waits for another holds its slot: enough of them, and none can run."""
    for task in reading.all_tasks:
        sent = {
            target.id
            for node in ast.walk(task.function)
            if isinstance(node, ast.Assign) and _sends(node.value)
            for target in node.targets
            if isinstance(target, ast.Name)
        }
        for node in ast.walk(task.function):
            if not (isinstance(node, ast.Call) and _name(node.func) in ("get", "join", "wait")):
                continue
            of = getattr(node.func, "value", None)
            if not (_sends(of) or (isinstance(of, ast.Name) and of.id in sent)):
                continue
            if any(word.arg == "disable_sync_subtasks" for word in node.keywords):
                continue
            reading.folder.find(
                "D-CODE-WAIT",
                task.module.path,
                node.lineno,
                f"The task {task.name} waits for the result of another: it holds its slot meanwhile, and "
                "when all slots wait nothing runs any more. Celery raises RuntimeError here.",
                "Make it a chain or a chord, whose next step gets the result as an argument.",
            )


def _sends(node: ast.AST | None) -> bool:
    return isinstance(node, ast.Call) and _name(node.func) in ("delay", "apply_async", "send_task")


def _coroutine_tasks(reading) -> None:
    """Celery calls an `async def` and stores the coroutine, which cannot be stored."""
    for task in reading.all_tasks:
        if isinstance(task.function, ast.AsyncFunctionDef):
            reading.folder.find(
                "D-CODE-ASYNC",
                task.module.path,
                task.function.lineno,
                f"{task.name} is an `async def`: Celery's own workers cannot run it, celeriac's can.",
                "Keep it on queues that only celeriac's workers consume, or call asyncio.run in a plain def.",
            )


def _autodiscover(reading) -> None:
    """What autodiscover_tasks does not find it does not miss."""
    from .doctor import is_standard

    for module in reading.modules:
        for node in _calls(module):
            if _name(node.func) != "autodiscover_tasks" or not node.args:
                continue
            names = node.args[0].elts if isinstance(node.args[0], (ast.List, ast.Tuple)) else []
            for item in names:
                name = item.value if isinstance(item, ast.Constant) else None
                if not isinstance(name, str):
                    continue
                top = name.partition(".")[0]
                if is_standard(top):
                    what = f"autodiscover_tasks looks into {name}: Python finds its own module {top}."
                elif name.endswith(".tasks"):
                    what = f"autodiscover_tasks looks for {name}.tasks, a module inside {name}."
                else:
                    continue
                reading.folder.find(
                    "D-CODE-AUTODISCOVER",
                    module.path,
                    item.lineno,
                    f"{what} Celery says nothing when it finds no tasks.",
                    "Name the modules themselves: Celery(…, include=['package.tasks']).",
                )


def _text_numbers(reading) -> None:
    """A variable of the environment is a text; a text is neither more nor less than a number."""
    texts, numbers, converted = {}, set(), {}
    for module in reading.modules:
        for node in ast.walk(module.tree):
            if isinstance(node, ast.Assign):
                for target in node.targets:
                    if not isinstance(target, ast.Name):
                        continue
                    if _reads_variable(node.value):
                        texts[target.id] = (module.path, node.lineno)
                    elif _is_number(node.value):
                        numbers.add(target.id)
            elif isinstance(node, ast.Call) and _name(node.func) in ("int", "float") and node.args:
                name = _name(node.args[0])
                if name and name.isupper():
                    converted[name] = (module.path, node.lineno)
    for module in reading.modules:
        for node in ast.walk(module.tree):
            if not isinstance(node, ast.Compare) or len(node.ops) != 1:
                continue
            if not isinstance(node.ops[0], (ast.Lt, ast.LtE, ast.Gt, ast.GtE)):
                continue
            for side, other in ((node.left, node.comparators[0]), (node.comparators[0], node.left)):
                name = side.id if isinstance(side, ast.Name) else None
                if name is None or name in numbers or not _is_number(other):
                    continue
                place = texts.get(name) or converted.get(name)
                if place is None:
                    continue
                how = "is made a number elsewhere, so it is a text"
                if name in texts:
                    how = "is a text from the environment"
                reading.folder.find(
                    "D-CODE-ENV-NUMBER",
                    module.path,
                    node.lineno,
                    f"{name} {how} ({place[0]}:{place[1]}), and is compared with a number here: TypeError.",
                    f"Make it a number once, where it is read: {name} = float(os.environ[\"{name}\"]).",
                )


def _is_number(node: ast.AST) -> bool:
    if isinstance(node, ast.Constant):
        return isinstance(node.value, (int, float)) and not isinstance(node.value, bool)
    if isinstance(node, ast.Call):
        of = getattr(node.func, "value", None)
        is_measured = isinstance(of, ast.Name) and of.id in ("random", "time")
        return is_measured or _name(node.func) in ("int", "float")
    return False


def _reads_variable(node: ast.AST) -> bool:
    """`os.getenv(…)`, `os.environ.get(…)`, `os.environ[…]`."""
    if isinstance(node, ast.Call):
        of = getattr(node.func, "value", None)
        return _name(node.func) == "getenv" or (_name(node.func) == "get" and _name(of) == "environ")
    return isinstance(node, ast.Subscript) and _name(node.value) == "environ"


def _truths(reading) -> None:
    """Whether a switch is on should not depend on who reads it."""
    for module in reading.modules:
        for node in ast.walk(module.tree):
            if not (isinstance(node, ast.Compare) and len(node.ops) == 1):
                continue
            if not isinstance(node.ops[0], (ast.Eq, ast.NotEq)):
                continue
            word = node.comparators[0].value if isinstance(node.comparators[0], ast.Constant) else None
            if not isinstance(word, str) or word.lower() not in _TRUTHS:
                continue
            read, is_lowered = node.left, False
            while isinstance(read, ast.Call) and _name(read.func) in ("lower", "upper", "strip"):
                is_lowered |= _name(read.func) != "strip"
                read = read.func.value
            if not _reads_variable(read):
                continue
            name = _variable(read)
            others = "1, yes and on" if is_lowered else "True, 1, yes and on"
            reading.folder.find(
                "D-CODE-ENV-BOOL",
                module.path,
                node.lineno,
                f"{name} counts as set only when it is {word!r}: {others} mean the opposite, silently.",
                "Read switches in one place that knows 1/0, true/false, yes/no, on/off, and refuses others.",
            )


def _variable(node: ast.AST) -> str:
    argument = node.slice if isinstance(node, ast.Subscript) else (node.args[0] if node.args else None)
    return argument.value if isinstance(argument, ast.Constant) else "The variable"


def _calls(module):
    return [node for node in ast.walk(module.tree) if isinstance(node, ast.Call)]


def _name(node: ast.AST | None) -> str | None:
    """`c` of `a.b.c` and of `c`."""
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else None
