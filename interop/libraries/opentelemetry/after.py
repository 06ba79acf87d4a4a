import json
import pathlib

#: Identifiers of messages and clients, and times.
SKIPPED = {"messaging.message.id", "messaging.conversation_id", "celery.reply_to", "celery.hostname",
           "celery.eta"}
notes = [json.loads(line) for line in pathlib.Path("notes.jsonl").read_text().splitlines()]
names = {note["context"]["span_id"]: note["name"] for note in notes}
print(len({note["context"]["trace_id"] for note in notes}), "trace")
print("\n".join(sorted(repr([
    note["name"], note["kind"], names.get(note["parent_id"], note["parent_id"]), note["status"],
    sorted((name, value) for name, value in note["attributes"].items() if name not in SKIPPED),
    [(event["name"], event["attributes"].get("exception.type")) for event in note["events"]],
]) for note in notes)))
