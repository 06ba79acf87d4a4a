"""What sentry was told, in words."""

import json
import pathlib


def notes():
    path = pathlib.Path("notes.jsonl")
    lines = path.read_text().splitlines() if path.exists() else []
    # A child that is forked has a copy of what its parent was still to send.
    return list({note["event_id"]: note for note in map(json.loads, lines)}.values())


def told():
    """One line for each note, without what differs on purpose: celeriac stores results outside of the child,
    so there are no spans of its Redis commands; it does not tell the app's log of children that end; and it
    tells of a hard limit once, where Celery 5.7 does so twice."""
    found = [note for note in notes() if note.get("logger") != "multiprocessing"
             and note.get("logentry", {}).get("message") != "Task handler raised error: %r"]
    script = next(note for note in found if note.get("transaction") == "the script")
    trace_id = script["contexts"]["trace"]["trace_id"]
    lines = []
    for note in found:
        trace = note["contexts"]["trace"]
        errors = [(error["type"], error["mechanism"]["type"])
                  for error in note.get("exception", {}).get("values", [])]
        tags = {name: value for name, value in note.get("tags", {}).items() if name != "celery_task_id"}
        job = note.get("extra", {}).get("celery-job", {})
        # Celery's main process has no transaction.
        of_a_task = note.get("logger") is None
        lines.append(repr([
            note["type"], note.get("transaction"), note.get("logger"),
            note.get("logentry", {}).get("message"),
            of_a_task and [trace.get("op"), trace.get("status"), trace["trace_id"] == trace_id], errors, tags,
            job.get("task_name"), job.get("args"), "celery_task_id" in note.get("tags", {}),
            sorted(span["op"] for span in note.get("spans", []) if span["op"] != "db.redis"),
        ]))
    return "\n".join(sorted(lines))
