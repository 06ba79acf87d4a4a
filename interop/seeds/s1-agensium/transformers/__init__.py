"""Stand-in for the backend's transformers: small, but they read the file and write a report."""

import csv
import io
import json


def read_rows(s3, user_id, task_id):
    """The rows of the task's input file."""
    return list(csv.DictReader(io.StringIO(s3.get(user_id, task_id, "input.csv"))))


def write_report(s3, user_id, task_id, report):
    """Puts the report beside the input."""
    s3.put(user_id, task_id, "report.json", json.dumps(report, sort_keys=True))


def profile(rows):
    """How many values of each column are there and differ."""
    columns = rows[0].keys() if rows else []
    return {
        column: {
            "filled": sum(1 for row in rows if row[column].strip()),
            "distinct": len({row[column] for row in rows}),
        }
        for column in columns
    }


def clean(rows):
    """Spaces go, e-mail addresses are written small, repeated rows go; and how many changed."""
    seen, kept, changed = set(), [], 0
    for row in rows:
        neat = {key: " ".join(value.split()) for key, value in row.items()}
        neat["email"] = neat["email"].lower()
        changed += neat != row
        key = tuple(neat.values())
        if key not in seen:
            seen.add(key)
            kept.append(neat)
    return {"rows": len(kept), "changed": changed, "repeated": len(rows) - len(kept)}


def master(rows):
    """People by e-mail address: how many there are, how many rows the largest has."""
    people = {}
    for row in clean_rows(rows):
        people.setdefault(row["email"], []).append(row)
    return {"people": len(people), "largest": max(map(len, people.values()), default=0)}


def clean_rows(rows):
    """The rows with e-mail addresses written small."""
    return [{**row, "email": row["email"].strip().lower()} for row in rows]
