"""A scene and its transcript: features by name, each a text that must be the same under both workers."""

import json

from .plain import plain, show
from .stage import Late, in_order, shown_document, told, until

#: An event of these kinds is the last of a delivery.
LAST = ("task-succeeded", "task-failed", "task-revoked", "task-rejected")
#: A task that has not ended by then does not.
END_SECONDS = 10.0
_scenes = {}


def scene(name, own=False, deaths=False):
    """Registers a scene. With `own` it starts workers of its own; else it plays on the common one.

    With `deaths` children die: one such scene at a time, for stock Celery confuses deaths that come together.
    """

    def register(function):
        assert name not in _scenes, name
        _scenes[name] = (function, own, deaths)
        return function

    return register


def scenes():
    """All of them by name: the function, whether it has workers of its own, whether children die."""
    return dict(_scenes)


class Play:
    """One scene that is being played."""

    def __init__(self, name, stage, worker):
        self.name = name
        self.stage = stage
        self.worker = worker
        self.features = {}
        self.later = []
        self.lacks = []

    def missing(self, package):
        """This environment lacks what the scene is about."""
        self.lacks.append(package)

    def say(self, feature, value):
        """A feature that is known by now."""
        assert feature not in self.features, feature
        self.features[feature] = plain(show(value))

    def afterwards(self, function):
        """What is to be told when everything has ended."""
        self.later.append(function)

    def finish(self):
        """Tells what could only be known at the end."""
        for function in self.later:
            function()

    # -- one task ----------------------------------------------------------------------------------

    async def life(self, label, signature, ends=None, wait=True, **options):
        """Sends a task, waits for its end, and tells all that can be seen of it when all has ended.

        `ends`: the event that ends it, or a condition; by default any last one.
        """
        result = signature.apply_async(**options) if not hasattr(signature, "ready") else signature
        self.watch(label, result.id)
        if wait:
            await self.end(label, result.id, ends)
        return result

    async def end(self, label, task_id, ends=None):
        """Waits for the end of a task."""
        kinds = LAST if ends is None else ends

        def over():
            if callable(kinds):
                return kinds(task_id)
            return any(event["type"] in kinds for event in self.stage.events_of(task_id))

        try:
            await until(f"the end of {label}", over, END_SECONDS)
        except Late as error:
            self.features[f"{label}: end"] = str(error)

    async def ran(self, label, task_id):
        """Waits until a task's body has ended, for those of which no event tells."""
        await until(f"the run of {label}",
                    lambda: self.stage.notes("signal", id=task_id, signal="task_postrun"))

    def watch(self, label, task_id):
        """Tells the life of a task at the end: documents, events, lines of the log, signals, hooks."""
        ids = {task_id: "<this>"}

        def tell():
            stage = self.stage
            self.features[f"{label}: states"] = " ".join(
                self._status(raw) for one, raw in stage.stored if one == task_id) or "none"
            document = stage.document(task_id)
            self.features[f"{label}: result"] = shown_document(document, ids)
            if document and document.get("traceback"):
                self.features[f"{label}: traceback"] = plain(document["traceback"], ids)
            self.features[f"{label}: events"] = in_order(
                [told(event, ids) for event in stage.events_of(task_id)])
            self.features[f"{label}: log"] = "\n".join(sorted(self.worker.lines(f"[{task_id}]"))) or "none"
            for kind, word in (("signal", "signals"), ("hook", "hooks"), ("request", "own Request")):
                lines = [self._noted(note, ids) for note in stage.notes(kind, id=task_id)]
                if lines:
                    self.features[f"{label}: {word}"] = in_order(lines)

        self.afterwards(tell)

    @staticmethod
    def _status(raw):
        return json.loads(raw)["status"]

    @staticmethod
    def _noted(note, ids):
        """A note in words; who noted it stands first."""
        members = dict(note)
        kind, role, _id = members.pop("kind"), members.pop("role"), members.pop("id")
        head = members.pop("signal" if kind == "signal" else "hook" if kind == "hook" else "method")
        return plain(f"{role}: {head} {show(members)}", ids)

    # -- many tasks --------------------------------------------------------------------------------

    async def tree(self, label, result, tasks, parents=True, seconds=15.0):
        """Waits until so many tasks of one root have ended, and tells who they were.

        `parents`: theirs too; of what follows several tasks, it is the last of them to end.
        """
        stage = self.stage
        root = self.root_of(result)

        def members():
            return [event for event in stage.events if event["type"] == "task-received"
                    and root in (event.get("root_id"), event.get("uuid"))]

        def over():
            ids = {event["uuid"] for event in members()}
            done = {one for one in ids
                    if any(event["type"] in LAST for event in stage.events_of(one))}
            return len(members()) >= tasks and done == ids

        await until(f"{tasks} tasks of {label}", over, seconds)
        self.afterwards(lambda: self._tell_tree(label, members(), parents))

    @staticmethod
    def root_of(result):
        """The first task of a workflow; groups have no root of their own, so their first member's."""
        while getattr(result, "parent", None) is not None:
            result = result.parent
        children = getattr(result, "results", None)
        return children[0].id if children else result.id

    def _tell_tree(self, label, received, parents):
        names = {event["uuid"]: f"{event['name']}{event['args']}" for event in received}
        lines = []
        for event in received:
            document = self.stage.document(event["uuid"]) or {}
            kinds = [one["type"] for one in self.stage.events_of(event["uuid"])]
            lines.append(plain(show({
                "task": names[event["uuid"]], "kwargs": event["kwargs"],
                "parent": names.get(event["parent_id"], event["parent_id"]) if parents else "",
                "root": names.get(event["root_id"], event["root_id"]),
                "status": document.get("status"), "result": document.get("result"),
                "group": bool(document.get("group_id")),
                "children": len(document.get("children") or ()),
                "events": kinds if kinds.count("task-received") == 1 else sorted(kinds),
            })))
        self.features[f"{label}: tasks"] = "\n".join(sorted(lines))
