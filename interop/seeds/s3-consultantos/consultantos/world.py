"""Stand-in for what S3 watches and tells: monitored values and mails are files in DATA_FOLDER.

A monitor's value is the file `monitors/ID`; `down-ID.N` makes its next check fail, once; a FIFO
`hold-ID` makes it wait until somebody opens it.
"""

import os
import pathlib

DATA = pathlib.Path(os.getenv("DATA_FOLDER", "data"))
FAULTS = pathlib.Path(os.getenv("FAULTS_FOLDER", DATA / "faults"))
LIMIT = 100


def check(monitor_id):
    for fault in sorted(FAULTS.glob(f"down-{monitor_id}.*")):
        fault.unlink(missing_ok=True)
        raise ConnectionError(f"{monitor_id} does not answer")
    gate = FAULTS / f"hold-{monitor_id}"
    if gate.exists():
        with gate.open():
            pass
    value = int((DATA / "monitors" / monitor_id).read_text())
    with (DATA / "checks").open("a") as log:
        log.write(monitor_id + "\n")
    return {"monitor_id": monitor_id, "value": value, "alert": value > LIMIT}


def send_mail(to, text):
    line = f"{to}: {text}"
    with (DATA / "mails").open("a") as box:
        box.write(line + "\n")
    return line


def mails():
    box = DATA / "mails"
    return box.read_text().splitlines() if box.exists() else []


def score(company, framework):
    return sum(map(ord, company + framework)) % 100


def forget():
    (DATA / "mails").unlink(missing_ok=True)
