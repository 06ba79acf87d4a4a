"""Stand-in for the sources that are collected: a CSV file in DATA_FOLDER for each.

`away-SOURCE.N` in FAULTS_FOLDER makes the next read fail, once.
"""

import csv
import os
import pathlib

DATA = pathlib.Path(os.getenv("DATA_FOLDER", "data"))
FAULTS = pathlib.Path(os.getenv("FAULTS_FOLDER", "faults"))


def read(source):
    for fault in sorted(FAULTS.glob(f"away-{source}.*")):
        fault.unlink(missing_ok=True)
        raise ConnectionError(f"{source} does not answer")
    with (DATA / f"{source}.csv").open(newline="") as file:
        return list(csv.DictReader(file))
