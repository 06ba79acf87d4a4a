#!/usr/bin/env python3
"""Checks commands.tsv: every command line and variable of the seeds is there, and what is said holds.

Standard library only. The seed documents are not in the repository: given their folder, the lines
are extracted again and compared with the table; without it, only the verdicts are checked.

A detail begins with how its verdict is checked:

    parse               the command line with `--help` is accepted
    run                 it ends with code 0
    run => TEXT         it fails and prints TEXT; what follows `; later: ` says where it belongs
    setting: NAME       `celeriac config show` names the variable as the source of the setting NAME
    scene: SEED/SCENE   the scene exists, so that `run.py` plays it

Anything else is words for the reader, and only `replaced` and `not-yet` may have nothing but words.
A command line is run with `celeriac` for `celery`, and but for `refused` with `agq` for `queue` (T-01).
"""

import argparse
import os
import pathlib
import re
import shlex
import subprocess
import sys
import tempfile

import run as runner

HERE = pathlib.Path(__file__).resolve().parent
TABLE = HERE / "commands.tsv"
VERDICTS = ("runs", "replaced", "refused", "not-yet")
SEEDS = {"S1": "000_*", "S2": "001_*", "S3": "002_*", "S4": "003_*", "S5": "004_*"}

# -- what the seeds say ----------------------------------------------------------------------------

PROGRAMS = (
    "celery", "pip", "python", "pytest", "redis-cli", "docker", "docker-compose", "uvicorn", "npm",
    "curl", "gcloud", "brew", "mkdir", "touch", "cd", "./scripts/", ".\\",
)
SHELLS = ("bash", "sh", "powershell")
OWN_PATH = re.compile(r'"c:\\Users\\[^"]*"')  # T-45: the path of the author's machine
SPAN = re.compile(r"`([^`]+)`")
VARIABLES = [re.compile(pattern) for pattern in (
    r"getenv\(['\"]([A-Z_]+)['\"]",
    r"\$env:([A-Z_]+) = \S+",
    r"export ([A-Z_]+)=\S*",
    r"--set-env-vars \"([A-Z_]+)=\S*\"",
    r"\b(CELERY_ENABLED|CELERY_PERCENTAGE|QUEUE_SERVICE_URL|FORCE_LEGACY_QUEUE|USE_CELERY)\b",
)]
CONTAINER_ARGUMENTS = re.compile(r'--args="(-A,[^"]*)"')
ASSIGNMENT = re.compile(r"^(?:# )?([A-Z][A-Z_]+)=")
YAML_VARIABLE = re.compile(r"^\s*([A-Z][A-Z_]+):")
SPAN_VARIABLE = re.compile(r"^([A-Z]+_[A-Z_]+)(=\S+)?$")


def is_command(text):
    return any(text == name or text.startswith((name + " ", name) if name[0] == "." else name + " ")
               for name in PROGRAMS)


def extract(seed, text):
    """The rows (seed, line, text) of a document: commands as they stand, variables as `$NAME`."""
    text = OWN_PATH.sub('"<folder of the backend>"', text)
    rows, language, lines, skip = [], None, text.splitlines(), 0
    for number, line in enumerate(lines, 1):
        bare = line.strip()
        if bare.startswith("```"):
            language = (bare[3:].strip() or "text") if language is None else None
            continue
        names = {found[1] for pattern in VARIABLES for found in pattern.finditer(line)}
        if language in ("env", *SHELLS) and (found := ASSIGNMENT.match(bare)):
            names.add(found[1])
        if language == "yaml" and (found := YAML_VARIABLE.match(line)):
            names.add(found[1])
        if language is None:
            names |= {found[1] for span in SPAN.findall(line) if (found := SPAN_VARIABLE.match(span))}
        rows += [(seed, number, "$" + name) for name in sorted(names)]
        if number <= skip:
            continue
        if language is None:
            rows += [(seed, number, span) for span in SPAN.findall(line) if is_command(span)]
            continue
        command = bare.removeprefix("command: ")
        if (found := CONTAINER_ARGUMENTS.match(command)) and language in SHELLS:
            command = "celery " + found[1].replace(",", " ")
        if language in SHELLS or is_command(command):
            last = number
            while command.endswith("\\") and command.startswith("celery "):
                command = command[:-1].rstrip() + " " + lines[last].strip()
                last += 1
            if is_command(command):
                rows.append((seed, number, command))
                skip = last
    return rows


def documents(folder):
    """The rows of all five documents in a folder."""
    rows = []
    for seed, pattern in SEEDS.items():
        (path,) = pathlib.Path(folder).glob(pattern)
        rows += extract(seed, path.read_text())
    return rows


def table():
    """The rows of the table, and what is wrong with its form."""
    rows, problems = [], []
    head, *lines = TABLE.read_text().splitlines()
    if head != "seed\tline\ttext\tverdict\tdetail":
        problems.append("commands.tsv has another first line")
    for number, line in enumerate(lines, 2):
        cells = line.split("\t")
        if len(cells) != 5 or cells[3] not in VERDICTS or not cells[4]:
            problems.append(f"commands.tsv:{number}: not five cells with a verdict and a detail")
            continue
        rows.append((cells[0], int(cells[1]), *cells[2:]))
    return rows, problems


# -- what the program says -------------------------------------------------------------------------


class Program:
    """Runs the program, each command line once, where a package is called `queue` (T-01)."""

    def __init__(self, path, python, folder):
        self.path = path
        self.python = python
        self.folder = folder
        self.answers = {}
        package = pathlib.Path(folder) / "queue"
        package.mkdir()
        (package / "__init__.py").touch()
        (package / "celery_app.py").touch()

    def run(self, words, **variables):
        key = (words, *sorted(variables.items()))
        if key not in self.answers:
            own = {"PATH": os.environ.get("PATH", os.defpath), "HOME": self.folder,
                   "PYTHONDONTWRITEBYTECODE": "1", **variables}
            words = shlex.split(words)
            if "-A" in words and self.python:
                words[:0] = ["--python", self.python]
            done = subprocess.run([self.path, *words], cwd=self.folder, env=own, stdin=subprocess.DEVNULL,
                                  capture_output=True, text=True, timeout=60, check=False)
            self.answers[key] = done.returncode, done.stdout + done.stderr
        return self.answers[key]


def check(program, text, verdict, detail):
    """What does not hold of a row, or None."""
    how, _, words = detail.partition(": ")
    line = text.removeprefix("celery ")
    if verdict != "refused":
        line = line.replace("-A queue.", "-A agq.")
    if how == "parse":
        code, said = program.run(line + " --help")
        return None if code == 0 else f"not accepted: {said.strip()}"
    if detail.partition(" => ")[0] == "run":
        wanted = detail.partition(" => ")[2].partition("; later: ")[0]
        code, said = program.run(line)
        flat = " ".join(said.split())
        if verdict == "runs":
            return None if code == 0 else f"code {code}: {flat}"
        if code == 0:
            return "it runs: the verdict is out of date"
        return None if wanted and wanted in flat else f"it says: {flat}"
    if how == "setting":
        name = text.removeprefix("$")
        value = {"broker_url": "redis://x/0", "result_backend": "redis://x/0"}.get(words, "7")
        more = {"CELERY_BROKER_URL": value} if words == "result_backend" else {}
        code, said = program.run("config show", **{name: value, **more})
        row = next((line for line in said.splitlines() if line.split()[:1] == [words]), "")
        return None if code == 0 and name in row else f"config show says: {row or said.strip()}"
    if how == "scene":
        seed, _, scene = words.partition("/")
        known = [name for name, _reason in runner.listed(seed)] if seed in runner.SEEDS else []
        return None if scene in known else "there is no such scene"
    return None if verdict in ("replaced", "not-yet") else "nothing that can be checked"


def main():
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("documents", nargs="?", help="folder of the five seed documents")
    options.add_argument("--celeriac", help="the program; without it nothing is run")
    options.add_argument("--python", help="a Python with Celery; without it no app is loaded")
    options.add_argument("--extract", action="store_true", help="print what is extracted, check nothing")
    options = options.parse_args()
    if options.extract:
        for row in documents(options.documents):
            print(*row, sep="\t")
        return 0
    rows, problems = table()
    if options.documents:
        found, said = documents(options.documents), [row[:3] for row in rows]
        problems += [f"not in the table: {row}" for row in found if row not in said]
        problems += [f"not in the documents: {row}" for row in said if row not in found]
        problems += [f"twice in the table: {row}" for row in sorted(set(said)) if said.count(row) > 1]
    with tempfile.TemporaryDirectory(prefix="commands-") as folder:
        path = options.celeriac and str(pathlib.Path(options.celeriac).resolve())
        python = options.python and os.path.abspath(options.python)
        program = Program(path, python, folder)
        for seed, line, text, verdict, detail in rows:
            if not path and detail.startswith(("parse", "run", "setting:")):
                continue
            if not python and verdict == "refused":
                continue
            if problem := check(program, text, verdict, detail):
                problems.append(f"{seed} L{line} {text}: {verdict}, {detail}: {problem}")
    for problem in problems:
        print(problem)
    counts = {verdict: sum(row[3] == verdict for row in rows) for verdict in VERDICTS}
    print(f"{len(rows)} rows:", ", ".join(f"{count} {verdict}" for verdict, count in counts.items()))
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
