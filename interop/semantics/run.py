#!/usr/bin/env python3
"""Plays one Celery app under stock Celery and under celeriac, and compares what can be seen of both.

Each scene is played twice through Celery's own client: against `celery worker` and against
`celeriac -A … worker` with the same options. What can be seen (results and their documents, states,
events, log lines, signals and who fired them, what is left on the broker) is a feature; every feature
must be the same, but for those that `intended.tsv` names with a reason. A difference that is not there,
and one there that is none any more, is exit code 1.
"""

import argparse
import contextlib
import ctypes
import difflib
import fnmatch
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
KINDS = ("stock", "celeriac")
RUN_SECONDS = 240
PAGE = HERE.parents[1] / "docs" / "reference" / "semantics.md"
#: A cell of the page has so many characters at most.
CELL = 90


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], epilog=__doc__.split("\n\n", 1)[1],
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--celeriac", default=shutil.which("celeriac"), help="the program to test")
    parser.add_argument("--python", default=sys.executable, help="the Python of an environment with Celery")
    parser.add_argument("--scene", action="append", default=[], metavar="GLOB", help="only these; may be repeated")
    parser.add_argument("--redis", action="append", default=[], metavar="URL",
                        help="two private servers to use, for stock and celeriac; default: starts its own")
    parser.add_argument("--redis-server", default="redis-server")
    parser.add_argument("--ports", help="FIRST-LAST of servers that it starts; default: any free one")
    parser.add_argument("--keep", type=pathlib.Path, metavar="DIR", help="keep logs and transcripts there")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    parser.add_argument("--all", action="store_true", help="print features that are the same too")
    parser.add_argument("--page", action="store_true",
                        help=f"fail when docs/reference/{PAGE.name} is stale; UPDATE=1 in the environment writes it")
    options = parser.parse_args()
    if not options.celeriac:
        parser.error("there is no celeriac on the PATH: name it with --celeriac")
    if len(options.redis) not in (0, len(KINDS)):
        parser.error("--redis is given twice, or not at all")
    options.celeriac = str(pathlib.Path(options.celeriac).resolve())
    return options


# -- servers ---------------------------------------------------------------------------------------


def free_port(options):
    """A port for a server of our own."""
    first, last = map(int, (options.ports or "0-0").split("-"))
    for port in range(first, last + 1):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return probe.getsockname()[1]
    sys.exit(f"no free port in {options.ports}")


@contextlib.contextmanager
def server(options, folder, index):
    """The URL of a Redis; one of our own dies with the block."""
    if options.redis:
        yield options.redis[index]
        return
    port = free_port(options)
    with (folder / "redis.txt").open("wb") as log:
        process = subprocess.Popen(
            [options.redis_server, "--port", str(port), "--bind", "127.0.0.1", "--save", "",
             "--appendonly", "no", "--dir", str(folder)], stdout=log, stderr=subprocess.STDOUT, preexec_fn=end_with_us)
    try:
        deadline = time.monotonic() + 20
        while True:
            try:
                with socket.create_connection(("127.0.0.1", port), 1) as line:
                    line.sendall(b"PING\r\n")
                    if line.recv(16).startswith(b"+PONG"):
                        break
            except OSError:
                if process.poll() is not None or time.monotonic() > deadline:
                    raise SystemExit(f"Redis did not start: {(folder / 'redis.txt').read_text()}") from None
                threading.Event().wait(0.02)
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        process.terminate()
        process.wait()


# -- playing ---------------------------------------------------------------------------------------


def end_with_us():
    """Linux: a child does not outlive the thread that started it."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)


def play(options, kind, url, folder):
    """Plays the scenes by one kind of worker; its transcript."""
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "PYTHONHASHSEED": "0"}
    for name in [name for name in environment if name.startswith(("CELERY", "CELERIAC", "PYTHONPATH", "DJANGO"))]:
        del environment[name]
    chosen = [part for glob in options.scene for part in ("--scene", glob)]
    with (folder / "drive.txt").open("wb") as log:
        drive = subprocess.Popen(
            [options.python, "-m", "kit.drive", kind, url, str(folder), "--celeriac", options.celeriac, *chosen],
            cwd=HERE, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
            start_new_session=True, preexec_fn=end_with_us)
    try:
        code = drive.wait(RUN_SECONDS)
    except subprocess.TimeoutExpired:
        code = f"none within {RUN_SECONDS} s"
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(drive.pid, signal.SIGKILL)
    transcript = folder / "transcript.json"
    found = json.loads(transcript.read_text()) if transcript.exists() else {"scenes": {}, "problem": None}
    if code != 0 or not found["scenes"]:
        said = (folder / "drive.txt").read_text()[-3000:]
        found["problem"] = f"{found['problem'] or ''}\nthe driver ended with {code}\n{said}"
    return found


def play_both(options, folder):
    """Both kinds at the same time: most of a scene is waiting."""
    found, threads = {}, []
    with contextlib.ExitStack() as stack:
        for index, kind in enumerate(KINDS):
            own = folder / kind
            own.mkdir(parents=True)
            url = stack.enter_context(server(options, own, index))

            def one(kind=kind, url=url, own=own):
                found[kind] = play(options, kind, url, own)

            threads.append(threading.Thread(target=one))
            threads[-1].start()
        for thread in threads:
            thread.join()
    return found


# -- comparing -------------------------------------------------------------------------------------


def intended(version):
    """Rows of `intended.tsv` for a version: globs of scene and feature, and the reason."""
    rows = []
    for line in (HERE / "intended.tsv").read_text().splitlines()[1:]:
        scene, feature, versions, reason = line.split("\t")
        if versions == "all" or version in versions.split():
            rows.append((scene, feature, reason))
    return rows


def compare(found, rows):
    """Every feature with its verdict; and the rows of the table that were of use."""
    features, used = [], set()
    scenes = list(dict.fromkeys(name for kind in KINDS for name in found[kind]["scenes"]))
    for scene in scenes:
        sides = [found[kind]["scenes"].get(scene, {"features": {}, "error": "it was not played"}) for kind in KINDS]
        for name in dict.fromkeys(name for side in sides for name in side["features"]):
            stock, ours = (side["features"].get(name) for side in sides)
            row = next((index for index, (one, feature, _) in enumerate(rows)
                        if fnmatch.fnmatchcase(scene, one) and fnmatch.fnmatchcase(name, feature)), None)
            verdict = "same"
            if stock != ours:
                verdict = "differs" if row is None else "intended"
                used.add(row)
            features.append({"scene": scene, "feature": name, "verdict": verdict, "stock": stock, "celeriac": ours,
                             "reason": rows[row][2] if verdict == "intended" else None})
        for kind, side in zip(KINDS, sides):
            if side["error"]:
                features.append({"scene": scene, "feature": f"played by {kind}", "verdict": "fails", "stock": None,
                                 "celeriac": side["error"], "reason": None})
    return features, [row for index, row in enumerate(rows) if index not in used]


def version_of(options):
    """The version of Celery, as 5.7."""
    text = subprocess.run([options.python, "-c", "import celery; print(celery.__version__)"], check=True,
                          capture_output=True, text=True).stdout
    return ".".join(text.split(".")[:2])


# -- telling ---------------------------------------------------------------------------------------


def short(text, width=CELL):
    """The text in a cell: one line, not too long."""
    if text is None:
        return "none"
    line = " ¶ ".join(text.splitlines())
    return line if len(line) <= width else f"{line[:width - 1]}…"


def table(features, everything):
    """The features as text."""
    for one in features:
        if everything or one["verdict"] != "same":
            cells = (short(one["stock"], 50).ljust(50), short(one["celeriac"], 50).ljust(50))
            yield f"{one['verdict']:<9} {one['scene']} · {one['feature']}\n          {cells[0]} | {cells[1]}"


def difference(one):
    """A feature of which the sides say different things."""
    yield f"\n== {one['scene']} · {one['feature']}: {one['verdict']}"
    if one["stock"] is None or one["celeriac"] is None:
        yield f"{one['stock'] or one['celeriac']}"
        return
    yield from difflib.unified_diff(one["stock"].splitlines(), one["celeriac"].splitlines(), "stock", "celeriac",
                                    lineterm="", n=1)


def cell(text):
    """A cell of the page."""
    safe = short(text).replace("|", "\\|").replace("`", "'")
    return f"`{safe}`" if safe else "(empty)"


def page(features, version):
    """docs/reference/semantics.md."""
    counts = {verdict: sum(one["verdict"] == verdict for one in features) for verdict in ("same", "intended")}
    yield "# One app under Celery and under celeriac\n"
    yield ("Written by `interop/semantics/run.py`, which plays one app twice and compares what can be seen: results, "
           "events, log, signals, what is left. A test fails when a row is no longer true.\n"
           "Chance (identifiers, times, processes) is replaced by words, and long texts are cut here, not there.\n")
    yield f"Celery {version}: {counts['same']} features are the same, {counts['intended']} differ on purpose."
    scene = None
    for one in features:
        if one["scene"] != scene:
            scene = one["scene"]
            yield f"\n## {scene}\n\n| feature | stock Celery {version} | celeriac | note |\n|---|---|---|---|"
        ours = "same" if one["verdict"] == "same" else cell(one["celeriac"])
        name = one["feature"].replace("|", "\\|")
        yield f"| {name} | {cell(one['stock'])} | {ours} | {one['reason'] or ''} |"


def stale(features, version):
    """Whether the page says something else; with UPDATE=1 it is written."""
    text = "\n".join(page(features, version)) + "\n"
    if os.environ.get("UPDATE"):
        PAGE.write_text(text)
    known = PAGE.read_text() if PAGE.exists() else ""
    return list(difflib.unified_diff(known.splitlines(), text.splitlines(), PAGE.name, "true", lineterm="", n=0))


def main():
    options = arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was started ends too
    version = version_of(options)
    with contextlib.ExitStack() as stack:
        if options.keep:
            folder = options.keep.resolve()
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
        else:
            folder = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="semantics-")))
        found = play_both(options, folder)
    features, unused = compare(found, intended(version))
    problems = [f"{kind}: {found[kind]['problem']}" for kind in KINDS if found[kind]["problem"]]
    lacks = sorted({package for kind in KINDS for side in found[kind]["scenes"].values() for package in side["lacks"]})
    if lacks:
        text = f"the environment lacks {', '.join(lacks)}: their scenes were not played"
        print(text, file=sys.stderr)
        problems += [text] if os.environ.get("CI") else []
    if not options.scene:
        problems += [f"intended.tsv has a row for no difference: {scene} · {feature}" for scene, feature, _ in unused]
    bad = [one for one in features if one["verdict"] in ("differs", "fails")]
    if options.page and not options.scene and not lacks and not bad and not problems:
        problems += stale(features, version)
    seconds = {kind: {name: side["seconds"] for name, side in found[kind]["scenes"].items()} for kind in KINDS}
    if options.json:
        print(json.dumps({"celery": version, "features": features, "problems": problems, "seconds": seconds},
                         indent=1, ensure_ascii=False))
    else:
        print("\n".join(table(features, options.all)))
        print("\n".join(line for one in bad for line in difference(one)))
        print("\n".join(problems))
        counts = {word: sum(one["verdict"] == word for one in features)
                  for word in ("same", "intended", "differs", "fails")}
        print(f"Celery {version}: " + ", ".join(f"{count} {word}" for word, count in counts.items()))
    return 1 if bad or problems else 0


if __name__ == "__main__":
    sys.exit(main())
