#!/usr/bin/env python3
"""Plays every shape of Celery's canvas on fleets of workers, and compares what can be seen.

The shapes are in kit/shapes.py. What stock Celery 5.7, 5.6 and 5.4 alone make of them is in expected.json
(--record writes it); each fleet must do what a stock Celery of one of its versions does: the value or error
that the caller gets, the states and values of all results on the way, and which tasks ran with what, in which
group, sent by whom. What may differ is in intended.tsv with the reason; a difference that is not there, and
a row without one, is exit code 1.
"""

import argparse
import contextlib
import ctypes
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
import time

from kit.compare import seen, spread

HERE = pathlib.Path(__file__).resolve().parent
EXPECTED = HERE / "expected.json"
PAGE = HERE.parents[1] / "docs" / "reference" / "canvas.md"
#: Name of a fleet to its workers: `stock-X` is Celery's, `children-X` celeriac with Python children of that
#: Celery, `native` the tasks in Rust.
FLEETS = {
    "stock 5.7": ["stock-5.7"],
    "stock 5.6": ["stock-5.6"],
    "stock 5.4": ["stock-5.4"],
    "children 5.7": ["children-5.7"],
    "children 5.6": ["children-5.6"],
    "children 5.4": ["children-5.4"],
    "native": ["native"],
    "native, stock 5.7": ["native", "stock-5.7"],
    "native, stock 5.4": ["native", "stock-5.4"],
    "children 5.7, stock 5.6, stock 5.4": ["children-5.7", "stock-5.6", "stock-5.4"],
    "native, children 5.7, stock 5.7": ["native", "children-5.7", "stock-5.7"],
    "native, children 5.4, stock 5.6, stock 5.7": ["native", "children-5.4", "stock-5.6", "stock-5.7"],
}
#: Stock Celery alone, and who sends: what is expected.
LANES = [(version, sender) for version in ("5.7", "5.6", "5.4") for sender in ("5.7", "5.4")]
ASPECTS = ("outcome", "tree", "runs")
START_SECONDS = 60
STOP_SECONDS = 20
PLAY_SECONDS = 90
#: After the last result, runs that are still to come are waited for so long.
LATE_SECONDS = 10
#: What is said of a shape that Celery leaves hanging.
HANGS = '"it does not end"'
#: Where it is not known how many: nothing has run for so long.
QUIET_SECONDS = 2


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], epilog=__doc__.split("\n\n", 1)[1],
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--celeriac", default=shutil.which("celeriac"), help="the program to test")
    parser.add_argument("--native", help="the example program `canvas`")
    parser.add_argument("--venvs", type=pathlib.Path, default=os.environ.get("CELERIAC_VENVS"),
                        help="folder of environments celery-5.4, celery-5.6, celery-5.7; default: $CELERIAC_VENVS")
    parser.add_argument("--fleet", action="append", default=[], metavar="GLOB", help="only these; may be repeated")
    parser.add_argument("--shape", action="append", default=[], metavar="NAME", help="only these; may be repeated")
    parser.add_argument("--sender", action="append", default=[], metavar="5.7|5.4|rust",
                        help="who sends; default: 5.7, and for fleets with it 5.4 and rust")
    parser.add_argument("--redis", metavar="URL", help="a private server to use; default: starts its own")
    parser.add_argument("--port", type=int, help="of the server that it starts; default: any free one")
    parser.add_argument("--record", action="store_true", help="write expected.json from stock Celery")
    parser.add_argument("--page", action="store_true", help=f"write docs/reference/{PAGE.name}")
    parser.add_argument("--keep", type=pathlib.Path, metavar="DIR", help="keep logs there")
    parser.add_argument("--list", action="store_true", help="print the fleets")
    options = parser.parse_args()
    if not options.list and not (options.celeriac and options.native and options.venvs):
        parser.error("--celeriac, --native and --venvs are needed")
    # The workers run in a folder of their own.
    for name in ("celeriac", "native", "venvs"):
        path = getattr(options, name)
        setattr(options, name, path and str(pathlib.Path(path).absolute()))
    options.fleets = [name for name in FLEETS
                      if not options.fleet or any(fnmatch.fnmatchcase(name, glob) for glob in options.fleet)]
    return options


def end_with_us():
    """Linux: a child does not outlive the thread that started it."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)


def until(what, condition, seconds):
    """Waits for a condition; late is an error that says for what."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise SystemExit(f"after {seconds} s still not: {what}")
        time.sleep(0.03)
    return value


# -- Redis ----------------------------------------------------------------------------------------


class Redis:
    """A server of our own, or one that is given; one command at a time."""

    def __init__(self, options, folder):
        self.process = None
        if options.redis:
            self.url = options.redis
        else:
            port = options.port or free_port()
            self.url = f"redis://127.0.0.1:{port}/0"
            log = (folder / "redis.txt").open("wb")
            self.process = subprocess.Popen(
                ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no",
                 "--dir", str(folder)], stdout=log, stderr=subprocess.STDOUT, preexec_fn=end_with_us)
        host, port = self.url.split("://")[1].split("/")[0].rsplit("@")[-1].split(":")
        self.address = (host, int(port))
        until("Redis answers", self._answers, 20)

    def _answers(self):
        with contextlib.suppress(OSError):
            return self.ask("PING") == "+PONG"

    def ask(self, *words):
        """The first line of the answer."""
        with socket.create_connection(self.address, 5) as line:
            line.sendall(f"*{len(words)}\r\n".encode() + b"".join(
                f"${len(word)}\r\n{word}\r\n".encode() for word in words))
            return line.makefile("rb").readline().decode().strip()

    def stop(self):
        if self.process:
            self.process.terminate()
            self.process.wait()


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


# -- workers --------------------------------------------------------------------------------------


class Fleet:
    """Workers that share one queue; each run is noted in one file."""

    def __init__(self, options, folder, workers, url):
        self.options, self.folder, self.url = options, folder, url
        self.notes_file = folder / "notes.jsonl"
        self.notes_file.touch()
        self.started = [(name, self._start(name)) for name in workers]
        for name, process in self.started:
            until(f"{name} is ready:\n{self._log(name)[-2000:]}", lambda n=name, p=process: self._ready(n, p),
                  START_SECONDS)

    def python(self, version):
        return str(pathlib.Path(self.options.venvs) / f"celery-{version}" / "bin" / "python")

    def environment(self, node):
        kept = {name: value for name, value in os.environ.items()
                if not name.startswith(("CELERY", "CELERIAC", "PYTHONPATH", "DJANGO"))}
        own = {"URL": self.url, "NODE": node, "NOTES": str(self.notes_file), "PYTHONPATH": str(HERE),
               "PYTHONDONTWRITEBYTECODE": "1", "CELERY_BROKER_URL": self.url, "CELERY_RESULT_BACKEND": self.url}
        return {**kept, **own}

    def _start(self, name):
        kind, _, version = name.partition("-")
        common = ["worker", "-n", f"{name}@canvas", "-l", "INFO", "-c", "2"]
        command = {
            "stock": [self.python(version), "-m", "celery", "-A", "kit.proj", *common,
                      "--without-gossip", "--without-mingle"],
            "children": [self.options.celeriac, "--python", self.python(version), "-A", "kit.proj", *common],
            "native": [self.options.native, *common],
        }[kind]
        with (self.folder / f"{name}.txt").open("wb") as log:
            return subprocess.Popen(command, cwd=self.folder, env=self.environment(name), stdin=subprocess.DEVNULL,
                                    stdout=log, stderr=subprocess.STDOUT, preexec_fn=end_with_us)

    def _log(self, name):
        return (self.folder / f"{name}.txt").read_text(errors="replace")

    def _ready(self, name, process):
        if process.poll() is not None:
            raise SystemExit(f"{name} ended:\n{self._log(name)[-3000:]}")
        return "ready" in self._log(name)

    def notes(self):
        return [json.loads(line) for line in self.notes_file.read_text().splitlines()]

    def play(self, version, *words):
        """Runs kit.play under a Celery; what it printed."""
        done = subprocess.run([self.python(version), "-m", "kit.play", *words], cwd=HERE, text=True,
                              env=self.environment("sender"), stdout=subprocess.PIPE, timeout=PLAY_SECONDS)
        if done.returncode:
            raise SystemExit(f"the sender failed: {' '.join(words)}")
        return json.loads(done.stdout)

    def send(self, sender, shapes):
        if sender != "rust":
            return self.play(sender, "send", str(len(self.started)), *shapes)
        done = subprocess.run([self.options.native, "send"], cwd=self.folder, env=self.environment("sender"),
                              stdout=subprocess.PIPE, text=True, timeout=PLAY_SECONDS)
        if done.returncode:
            raise SystemExit("the Rust sender failed")
        sent = json.loads(done.stdout)
        return {name: one for name, one in sent.items() if not shapes or name in shapes}

    def stop(self):
        """Lets all finish what they hold; what ran after the results were there is in the notes then."""
        for _, process in self.started:
            process.send_signal(signal.SIGTERM)
        for name, process in self.started:
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                if not name.startswith("stock"):  # Celery's own may hang when they stop
                    raise SystemExit(f"{name} does not stop:\n{self._log(name)[-2000:]}") from None


def quiet(fleet, expected):
    """Waits until as many runs are noted as should be, or nothing has run for a while."""
    last, since = -1, time.monotonic()
    deadline = since + LATE_SECONDS

    def still():
        nonlocal last, since
        count = len(fleet.notes_file.read_bytes())
        if count != last:
            last, since = count, time.monotonic()
        enough = expected is not None and len(fleet.notes()) >= expected
        return enough or time.monotonic() - since > QUIET_SECONDS or time.monotonic() > deadline

    until("the notes stand still", still, 2 * LATE_SECONDS)


def play(options, folder, fleet_name, sender, expected):
    """One fleet, one sender: what was seen, runs by node, and what is left of Celery's."""
    own = folder / f"{fleet_name} from {sender}".replace(", ", "+").replace(" ", "-")
    own.mkdir(parents=True)
    redis = Redis(options, own)
    try:
        redis.ask("FLUSHALL")
        fleet = Fleet(options, own, FLEETS[fleet_name], redis.url)
        began = time.monotonic()
        sent = fleet.send(sender, options.shape)
        for name in [name for name in sent if not fits(fleet_name, sender, name, sent[name]["needs"], expected)]:
            del sent[name]
        (own / "sent.json").write_text(json.dumps(sent))
        found = fleet.play("5.7" if sender == "rust" else sender, "collect", str(own / "sent.json"))
        runs = expected and sum(max(len(json.loads(value)) for value, _ in expected[name]["runs"]) for name in sent)
        quiet(fleet, runs)
        seconds = time.monotonic() - began
        left = {key: redis.ask(*words) for key, words in (("celery", ("LLEN", "celery")),
                                                          ("unacked", ("HLEN", "unacked")))}
        fleet.stop()
        notes = [note for note in fleet.notes() if note["tag"] in sent]
        nodes, crossed = spread(notes)
        return {"seen": seen(found, notes), "nodes": nodes, "crossed": crossed, "seconds": seconds,
                "left": [f"{count[1:]} in {key}" for key, count in left.items() if count != ":0"]}
    finally:
        redis.stop()


def fits(fleet, sender, name, needs, expected):
    """Whether a fleet can play a shape."""
    workers = FLEETS[fleet]
    if workers == ["native"] and needs:
        return False
    # Whether the step at which a Celery hangs is run by one that does is chance.
    return len(workers) == 1 or expected is None or HANGS not in allowed(fleet, sender, name, "outcome", expected)


def record(options, folder):
    """Plays the lanes of stock Celery, and writes what each shape was: values, and the lanes in which."""
    shapes = {}
    for version, sender in LANES:
        result = play(options, folder, f"stock {version}", sender, None)
        print(f"stock {version} from {sender}: {len(result['seen'])} shapes, {sum(result['nodes'].values())} runs, "
              f"{result['seconds']:.0f} s, left {result['left']}", flush=True)
        for name, one in result["seen"].items():
            for aspect in ASPECTS:
                values = shapes.setdefault(name, {}).setdefault(aspect, [])
                text = json.dumps(one[aspect]) if aspect != "outcome" else one[aspect]
                known = next((lanes for value, lanes in values if value == text), None)
                if known is None:
                    values.append([text, known := []])
                known.append(f"{version} from {sender}")
    EXPECTED.write_text(json.dumps(shapes, indent=1) + "\n")


# -- comparing ------------------------------------------------------------------------------------


def intended():
    rows = []
    for line in (HERE / "intended.tsv").read_text().splitlines()[1:]:
        fleet, shape, aspect, reason = line.split("\t")
        rows.append({"fleet": fleet, "shape": shape, "aspect": aspect, "reason": reason, "used": 0})
    return rows


def allowed(fleet, sender, name, aspect, expected):
    """What stock Celery of a version that the fleet has makes of a shape."""
    versions = {worker.partition("-")[2] or "5.7" for worker in FLEETS[fleet]}
    lanes = {f"{version} from {'5.7' if sender == 'rust' else sender}" for version in versions}
    return [value for value, seen_in in expected.get(name, {}).get(aspect, []) if lanes & set(seen_in)]


def compare(fleet, sender, result, expected, rows):
    """Every difference: (shape, aspect, expected, seen, row)."""
    for name, ours in result["seen"].items():
        for aspect in ASPECTS:
            if sender == "rust" and aspect == "tree":
                continue  # a Rust caller has one id, not those of the steps before
            wanted = allowed(fleet, sender, name, aspect, expected)
            if (ours[aspect] if aspect == "outcome" else json.dumps(ours[aspect])) in wanted:
                continue
            who = f"{fleet} from {sender}"
            row = next((row for row in rows if fnmatch.fnmatchcase(who, row["fleet"])
                        and fnmatch.fnmatchcase(name, row["shape"])
                        and fnmatch.fnmatchcase(aspect, row["aspect"])), None)
            if row:
                row["used"] += 1
            first = wanted[0] if wanted else None
            yield name, aspect, first if aspect == "outcome" or not first else json.loads(first), ours[aspect], row


def senders(options, fleet):
    if options.sender:
        return options.sender
    return ["5.7", "5.4", "rust"] if "native" in fleet else ["5.7", "5.4"]


def show(value):
    return json.dumps(value, indent=1) if isinstance(value, (dict, list)) else str(value)


def main():
    options = arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was started ends too
    if options.list:
        print("\n".join(FLEETS))
        return 0
    rows, bad, table = intended(), 0, []
    with contextlib.ExitStack() as stack:
        folder = options.keep.resolve() if options.keep else None
        if folder:
            shutil.rmtree(folder, ignore_errors=True)
        else:
            folder = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="canvas-")))
        if options.record:
            record(options, folder)
            return 0
        expected = json.loads(EXPECTED.read_text())
        for fleet in options.fleets:
            for sender in senders(options, fleet):
                result = play(options, folder, fleet, sender, expected)
                same = set(result["seen"])
                differs, meant = set(), set()
                for name, aspect, wanted, ours, row in compare(fleet, sender, result, expected, rows):
                    same.discard(name)
                    (meant if row else differs).add(name)
                    if not row:
                        print(f"== {fleet} from {sender} · {name} · {aspect}\n-- expected:\n{show(wanted)}\n"
                              f"-- here:\n{show(ours)}")
                lazy = [worker for worker in FLEETS[fleet] if not result["nodes"].get(worker)]
                bad += len(differs) + len(lazy) + len(result["left"])
                for worker in lazy:
                    print(f"== {fleet}: {worker} ran nothing")
                for what in result["left"]:
                    print(f"== {fleet}: {what} is left")
                table.append((fleet, sender, len(result["seen"]), len(same), len(meant - differs), len(differs),
                              ", ".join(f"{node} {count}" for node, count in sorted(result["nodes"].items())),
                              result["crossed"], f"{result['seconds']:.0f}"))
                print(*table[-1], sep=" | ", flush=True)
    if not (options.fleet or options.shape or options.sender):
        for row in rows:
            if not row["used"] and not row["reason"].startswith("chance"):
                bad += 1
                print(f"intended.tsv has a row for no difference: {row['fleet']} · {row['shape']}")
    if options.page:
        from kit.page import write
        write(PAGE, table, rows, expected)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
