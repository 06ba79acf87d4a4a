#!/usr/bin/env python3
"""Plays the scenes of the seeds' Celery apps by stock workers, by celeriac and by one of each.

Standard library only. For each app: an environment from its hashed lock, a private Redis for each
mode, the app's `scenes.py` in its own interpreter, and a comparison of what was said. What celeriac
cannot do yet is marked in the scenes with its reason, and must fail: a mark that is no longer true
is a failure too, and so is a table in the README that says something else.
"""

import argparse
import contextlib
import difflib
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

HERE = pathlib.Path(__file__).resolve().parent
MODES = ("stock", "celeriac", "mixed")
SEEDS = sorted(path.parent.name for path in HERE.glob("*/scenes.py"))
RUN_SECONDS = 900
BAD = ("differs", "fails", "passes unexpectedly", "missing", "idle")


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--celeriac", default=shutil.which("celeriac"), help="the program to test")
    parser.add_argument("--venvs", type=pathlib.Path, default=HERE.parents[1] / "target" / "seed-venvs",
                        help="folder of the environments, one for each seed")
    parser.add_argument("--install", action="store_true", help="make missing environments from the locks")
    parser.add_argument("--python", default=sys.executable, help="the Python that makes environments")
    parser.add_argument("--redis-server", default="redis-server")
    parser.add_argument("--ports", help="FIRST-LAST of private Redis servers; default: any free one")
    parser.add_argument("--seed", action="append", choices=SEEDS, help="only this one; may be repeated")
    parser.add_argument("--scene", action="append", default=[], help="only this one; may be repeated")
    parser.add_argument("--mode", action="append", choices=MODES, help="beside stock; may be repeated")
    parser.add_argument("--keep", type=pathlib.Path, help="keep logs and transcripts in this folder")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    parser.add_argument("--list", action="store_true", help="print scenes and what is not yet; run nothing")
    return parser.parse_args()


# -- environments ----------------------------------------------------------------------------------


def environment(options, seed):
    """The Python of a seed's environment, made from its lock when that is asked for."""
    folder = options.venvs / seed
    python = folder / "bin" / "python"
    lock = (HERE / seed / "requirements.lock").read_text()
    stamp = folder / "requirements.stamp"
    if stamp.exists() and stamp.read_text() == lock:
        return str(python)
    if not options.install:
        sys.exit(f"{folder}: no environment of {seed}'s lock; --install makes it")
    print(f"making the environment of {seed}", file=sys.stderr)
    shutil.rmtree(folder, ignore_errors=True)
    subprocess.run([options.python, "-m", "venv", str(folder)], check=True)
    subprocess.run([str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check",
                    "--no-deps", "--require-hashes", "-r", str(HERE / seed / "requirements.lock")],
                   check=True)
    stamp.write_text(lock)
    return str(python)


# -- servers ---------------------------------------------------------------------------------------


def free_port(options):
    if options.ports is None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            return probe.getsockname()[1]
    first, last = map(int, options.ports.split("-"))
    for port in range(first, last + 1):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    sys.exit(f"no free port in {options.ports}")


@contextlib.contextmanager
def redis(options, folder):
    """A Redis of our own, which dies with the block."""
    port = free_port(options)
    with (folder / "redis.txt").open("wb") as log:
        server = subprocess.Popen(
            [options.redis_server, "--port", str(port), "--bind", "127.0.0.1", "--save", "",
             "--appendonly", "no", "--dir", str(folder)], stdout=log, stderr=subprocess.STDOUT)
    try:
        deadline = time.monotonic() + 20
        while True:
            try:
                with socket.create_connection(("127.0.0.1", port), 1) as line:
                    line.sendall(b"PING\r\n")
                    if line.recv(16).startswith(b"+PONG"):
                        break
            except OSError:
                if server.poll() is not None or time.monotonic() > deadline:
                    raise SystemExit(f"Redis did not start: {(folder / 'redis.txt').read_text()}") from None
                threading.Event().wait(0.02)
        yield port
    finally:
        server.terminate()
        server.wait()


# -- playing ---------------------------------------------------------------------------------------


def listed(seed):
    """A seed's scenes with their marks, read from the source: no environment is needed."""
    import ast

    found = []
    for node in ast.parse((HERE / seed / "scenes.py").read_text()).body:
        for decorator in getattr(node, "decorator_list", ()):
            if isinstance(decorator, ast.Call) and getattr(decorator.func, "id", "") == "scene":
                marks = {word.arg: ast.literal_eval(word.value) for word in decorator.keywords}
                reason = next((f"{mark.replace('_', ' ')}: {marks[mark]}"
                               for mark in ("not_yet", "on_purpose") if mark in marks), None)
                found.append((ast.literal_eval(decorator.args[0]), reason))
    return found


def play(options, seed, mode, python, folder):
    """Runs a seed's scenes in one mode; gives its lines by scene, and who received how many tasks."""
    print(f"{seed} · {mode}", file=sys.stderr, flush=True)
    for name in ("faults", "s3", "home"):
        (folder / name).mkdir(parents=True)
    with redis(options, folder) as port:
        ours = {
            "PATH": os.pathsep.join([str(pathlib.Path(python).parent), os.environ.get("PATH", os.defpath)]),
            "HOME": str(folder / "home"), "LANG": "C.UTF-8", "PYTHONUNBUFFERED": "1",
            "PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": str(HERE / "kit"),
            "REDIS_URL": f"redis://127.0.0.1:{port}/0",
            "CELERY_BROKER_URL": f"redis://127.0.0.1:{port}/0",
            "CELERY_RESULT_BACKEND": f"redis://127.0.0.1:{port}/{backend_number(seed)}",
            "DATABASE_URL": f"sqlite:///{folder}/app.db", "S3_FOLDER": str(folder / "s3"),
            "FAULTS_FOLDER": str(folder / "faults"), "DATA_FOLDER": str(folder),
            "SEED_MODE": mode, "SEED_WORK": str(folder), "SEED_CELERIAC": str(options.celeriac),
        }
        report = folder / "scenes.jsonl"
        with (folder / "scenes.txt").open("wb") as log:
            scenes = subprocess.Popen(
                [python, "scenes.py", str(report), *options.scene], cwd=HERE / seed, env=ours,
                stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
        try:
            code = scenes.wait(RUN_SECONDS)
        except subprocess.TimeoutExpired:
            code = f"none within {RUN_SECONDS} s"
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(scenes.pid, 9)
        lines = [json.loads(line) for line in report.read_text().splitlines()] if report.exists() else []
        if code != 0:
            said = (folder / "scenes.txt").read_text()[-3000:]
            lines.append({"scene": "workers", "text": "", "seconds": 0,
                          "error": f"scenes.py ended with {code}\n{said}"})
    received = next((line["received"] for line in lines if "received" in line), {})
    return {line["scene"]: line for line in lines if "scene" in line}, received


def backend_number(seed):
    """T-38: S1 and S2 keep results in the broker's database, S5 beside it."""
    return 1 if seed.startswith("s5") else 0


# -- comparing -------------------------------------------------------------------------------------


def verdict(reason, mode, stock, played):
    """One cell of the table: its word and what to show."""
    if played is None:
        return "missing", None
    problem = played["error"]
    if problem is None and mode != "stock" and played["text"] != stock["text"]:
        problem = "\n".join(difflib.unified_diff(
            stock["text"].splitlines(), played["text"].splitlines(), "stock", mode, lineterm="", n=1))
    if reason and mode != "stock":
        if problem and not (reason.startswith("on purpose") and played["error"]):
            return reason.split(":")[0], problem
        # With two kinds of workers it is chance who gets the task.
        if not problem:
            return ("passes unexpectedly", f"marked {reason}") if mode == "celeriac" else ("ok", None)
    if problem is None:
        return "ok", None
    return ("fails" if played["error"] else "differs"), problem


def judge(options, seed, modes, folder):
    """Plays one seed in all modes; gives its rows."""
    python = environment(options, seed)
    played = {mode: play(options, seed, mode, python, folder / seed / mode) for mode in modes}
    stock = played["stock"][0]
    rows = []
    chosen = [entry for entry in listed(seed) if not options.scene or entry[0] in options.scene]
    for name, reason in [("workers", None), *chosen]:
        row = {"seed": seed, "scene": name, "mark": reason, "modes": {}}
        for mode in modes:
            lines = played[mode][0]
            if name == "workers" and name not in lines:
                idle = [kind for kind, count in played[mode][1].items() if not count]
                lazy = mode == "mixed" and idle and not options.scene
                word, shown = ("idle", f"no task was received by {idle}") if lazy else ("ok", None)
            else:
                word, shown = verdict(reason, mode, stock.get(name) or {"text": ""}, lines.get(name))
            row["modes"][mode] = {"verdict": word, "shown": shown,
                                  "seconds": lines.get(name, {}).get("seconds", 0),
                                  "received": played[mode][1] if name == "workers" else None}
        rows.append(row)
    return rows


def readme_problems():
    """The README's table of what celeriac plays otherwise must say what the scenes say."""
    said = {line for line in (HERE / "README.md").read_text().splitlines()
            if "| not yet: " in line or "| on purpose: " in line}
    marked = {f"| {seed} | {name} | {reason} |" for seed in SEEDS for name, reason in listed(seed) if reason}
    return [f"README.md lacks the line: {line}" for line in sorted(marked - said)] + [
        f"README.md has a line that no scene has: {line}" for line in sorted(said - marked)]


def table(rows, modes):
    """The rows as text."""
    width = max(len(f"{row['seed']} {row['scene']}") for row in rows)
    yield " " * width + "".join(f"  {mode:<20}" for mode in modes)
    for row in rows:
        cells = [f"{row['modes'][mode]['verdict']} {row['modes'][mode]['seconds']:.0f}s" for mode in modes]
        yield f"{row['seed']} {row['scene']}".ljust(width) + "".join(f"  {cell:<20}" for cell in cells)


def main():
    options = arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was started ends too
    if options.list:
        for seed in SEEDS:
            for name, reason in listed(seed):
                print(f"{seed}\t{name}\t{reason or ''}")
        return 0
    modes = ["stock", *[mode for mode in MODES[1:] if mode in (options.mode or MODES)]]
    if len(modes) > 1 and not options.celeriac:
        sys.exit("no celeriac: give its path with --celeriac")
    options.celeriac = options.celeriac and pathlib.Path(options.celeriac).resolve()
    options.venvs = options.venvs.resolve()
    with contextlib.ExitStack() as stack:
        if options.keep:
            folder = options.keep.resolve()
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
        else:
            folder = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="seeds-")))
        rows = [row for seed in options.seed or SEEDS for row in judge(options, seed, modes, folder)]
    problems = readme_problems()
    if options.json:
        print(json.dumps({"rows": rows, "readme": problems}, indent=1))
    else:
        for row in rows:
            for mode in modes:
                cell = row["modes"][mode]
                if cell["shown"] and cell["verdict"] in BAD:
                    print(f"\n== {row['seed']} · {row['scene']} · {mode}: {cell['verdict']}")
                    print(cell["shown"])
        print("\n".join(["", *table(rows, modes)]))
        for row in rows:
            if row["mark"]:
                print(f"{row['seed']} {row['scene']}: {row['mark']}")
        for problem in problems:
            print(problem)
    bad = [cell for row in rows for cell in row["modes"].values() if cell["verdict"] in BAD]
    return 1 if bad or problems else 0


if __name__ == "__main__":
    sys.exit(main())
