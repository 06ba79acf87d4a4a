"""Makes what was seen of a shape comparable: names instead of ids, no chance, and the counts of who ran what."""

import json
import re

_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


def seen(found, notes):
    """For each shape `{outcome, tree, runs}`."""
    by_tag = {}
    for note in notes:
        by_tag.setdefault(note["tag"], []).append(note)
    return {name: _shape(one, by_tag.get(name, [])) for name, one in found.items()}


def _shape(one, notes):
    names = {}
    _name_tree(one["tree"], "result", names)
    for note in notes:
        if note["id"]:
            names[note["id"]] = f"{note['task']}({', '.join(_text(a, {}) for a in note['args'])})"
    members = {note["id"] for note in notes if note["group"] and note["index"] is not None}
    roots = {note["root"] for note in notes if note["id"] in members}
    return {
        "outcome": _text(one["outcome"], names),
        "tree": _tree(one["tree"], names),
        "runs": sorted(_run(note, names, members, roots) for note in notes),
    }


def _name_tree(tree, path, names):
    """Names for what has not run, by its place in the result."""
    if tree is None:
        return
    if "group" in tree:
        for index, member in enumerate(tree["members"]):
            _name_tree(member, f"{path}.{index}", names)
    else:
        names.setdefault(tree["id"], path)
    _name_tree(tree["before"], f"{path}.before", names)


def _text(value, names):
    """A value as JSON, ids replaced."""
    if isinstance(value, dict) and set(value) == {"error", "args"}:
        text = f"{value['error']}({', '.join(map(repr, value['args']))})"
    else:
        text = json.dumps(value, sort_keys=True)
    return _ID.sub(lambda match: f"<{names.get(match[0], '?')}>", text)


def _tree(tree, names):
    if tree is None:
        return None
    if "group" in tree:
        return {"group": [_tree(member, names) for member in tree["members"]], "before": _tree(tree["before"], names)}
    return {"state": tree["state"], "value": _text(tree["value"], names),
            "children": _text(tree["children"], names), "before": _tree(tree["before"], names)}


def _of(task_id, names, members):
    """Which task that is; which member of a header ended last is chance."""
    name = names.get(task_id, "?")
    return "a member" if task_id in members or re.search(r"\.\d+$", name) else name


def _run(note, names, members, roots):
    """A run: what, which retry, its place in a group, who sent it and where all began."""
    parent = note["parent"]
    sender = "nobody" if parent is None else _of(parent, names, members)
    root = "itself" if note["root"] in (note["id"], None) else _of(note["root"], names, members)
    if sender == "a member" and note["root"] in roots:
        root = "that of the member"
    place = "" if note["index"] is None else f" [{note['index']}]"
    again = f" retry {note['retries']}" if note["retries"] else ""
    args = ", ".join(_text(argument, names) for argument in note["args"])
    return f"{note['task']}({args}){place}{again} from {sender}, root {root}"


def spread(notes):
    """Runs by node, and how many were sent by a run on another node."""
    nodes, where = {}, {}
    for note in notes:
        nodes[note["node"]] = nodes.get(note["node"], 0) + 1
        where[note["id"]] = note["node"]
    crossed = sum(note["parent"] in where and where[note["parent"]] != note["node"] for note in notes)
    return nodes, crossed
