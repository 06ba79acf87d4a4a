#!/usr/bin/env python3
"""celeriac beside its peers, in one run, on one private Redis.  See README.md for the method.

Run it with a Python that has `celery[redis]==5.7.0` and `dramatiq[redis]`; it needs redis-server,
Linux, and the programs of `bench/programs` built with --release.
"""

import argparse
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path

import redis

HERE = Path(__file__).resolve().parent
TICKS = os.sysconf("SC_CLK_TCK")
# The size of a stock envelope with a few short arguments.
ENVELOPE_BYTES = 900
PORT_FIRST = 21000
PATIENCE = 120.0


# -- measuring ---------------------------------------------------------------------------------


def cpu_of(pid):
    """User and system seconds of a process and of its ended children."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    fields = text.rpartition(")")[2].split()
    return sum(int(field) for field in fields[11:15]) / TICKS


def tree(pid):
    """A process and all that descend from it."""
    children = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                text = (entry / "stat").read_text()
            except (FileNotFoundError, ProcessLookupError):
                continue
            parent = int(text.rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(entry.name))
    found, todo = [], [pid]
    while todo:
        one = todo.pop()
        found.append(one)
        todo.extend(children.get(one, []))
    return found


def cpu_of_tree(pid):
    return sum(cpu_of(one) for one in tree(pid))


def memory_of_tree(pid):
    """Proportional set size of a process tree, in MiB."""
    total = 0
    for one in tree(pid):
        try:
            for line in Path(f"/proc/{one}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1])
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue
    return total / 1024


def percentile(values, part):
    values = sorted(values)
    return values[min(len(values) - 1, int(len(values) * part))]


# -- the server --------------------------------------------------------------------------------


class Server:
    """A private Redis that writes nothing to disk."""

    def __init__(self, folder):
        self.folder = folder
        for port in range(PORT_FIRST, PORT_FIRST + 100):
            self.process = subprocess.Popen(
                ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "",
                 "--appendonly", "no", "--dir", str(folder)],
                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            )
            self.url = f"redis://127.0.0.1:{port}/0"
            self.client = redis.Redis.from_url(self.url)
            if self.wait():
                return
        raise SystemExit("no free port for redis-server")

    def wait(self):
        deadline = time.monotonic() + 10
        while self.process.poll() is None and time.monotonic() < deadline:
            try:
                # Another server on this port is not ours.
                return self.client.info("server")["process_id"] == self.process.pid
            except redis.ConnectionError:
                time.sleep(0.05)
        return False

    def cpu(self):
        return cpu_of(self.process.pid)

    def close(self):
        self.process.kill()
        self.process.wait()


# -- the peers ---------------------------------------------------------------------------------


class Peer:
    name = ""
    results = False
    fast = False
    tasks_max = None

    def __init__(self, options, server, folder):
        self.options, self.server, self.folder = options, server, folder
        self.stamps_file = folder / "stamps"
        self.environment = {
            **os.environ,
            "BROKER": server.url,
            "STAMPS": str(self.stamps_file),
            "PYTHONPATH": str(HERE / "peers"),
            **({"RESULTS": "1"} if self.results else {}),
        }

    def run(self, *command, **more):
        return subprocess.run(
            [str(part) for part in command], env=self.environment, cwd=self.folder, check=True, **more
        )

    def python(self, code):
        self.run(sys.executable, "-c", code)

    def start(self):
        self.log = open(self.folder / "worker.log", "w")
        return subprocess.Popen(
            [str(part) for part in self.command()], env=self.environment, cwd=self.folder,
            stdout=self.log, stderr=self.log, start_new_session=True,
        )

    def depth(self):
        raise NotImplementedError


class Envelopes(Peer):
    """What drains a list of stock envelopes: Celery, and celeriac."""

    task = "bench.noop"

    def fill(self, count):
        """Copies one envelope that the stock producer wrote, each with ids of its own."""
        client = self.server.client
        self.python(f"from celery_peer import app; app.send_task('{self.task}', ['']{self.send})")
        empty = client.lindex("celery", 0)
        # Base64 makes four bytes of three.
        padding = max(0, (ENVELOPE_BYTES - len(empty)) * 3 // 4)
        client.flushall()
        self.python(
            f"from celery_peer import app; app.send_task('{self.task}', ['x' * {padding}]{self.send})"
        )
        envelope = client.lindex("celery", 0).decode()
        client.flushall()
        parsed = json.loads(envelope)
        ids = [parsed["headers"]["id"], parsed["properties"]["delivery_tag"]]
        pipeline = client.pipeline(transaction=False)
        for number in range(count):
            text = envelope
            for one in ids:
                text = text.replace(one, str(uuid.uuid4()))
            pipeline.lpush("celery", text)
            if number % 1000 == 999:
                pipeline.execute()
        pipeline.execute()
        return len(envelope)

    @property
    def send(self):
        return "" if self.results else ", ignore_result=True"

    def depth(self):
        return self.server.client.llen("celery")

    def send_stamps(self, count):
        self.python(
            "import random, time\n"
            "from celery_peer import stamp\n"
            f"for _ in range({count}):\n"
            "    time.sleep(random.uniform(0.01, 0.03))\n"
            "    stamp.delay(time.time())\n"
        )


class CeleryPrefork(Envelopes):
    name = "Celery 5.7 prefork"

    def command(self):
        return [sys.executable, "-m", "celery", "-A", "celery_peer", "worker", "-c",
                self.options.processes, "-l", "ERROR", "--without-gossip", "--without-mingle"]


class CeleryThreads(CeleryPrefork):
    name = "Celery 5.7 threads"

    def command(self):
        return [*super().command(), "-P", "threads"]


class CeleryResults(CeleryPrefork):
    name = "Celery 5.7 prefork, results"
    results, task = True, "bench.result"


class Ours(Envelopes):
    name = "celeriac"
    fast = True

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.environment["CELERIAC_BROKER_URL"] = self.server.url
        self.environment["CELERIAC_TASK_EVENTS"] = "false"
        for name in ("CELERY_BROKER_URL", "CELERY_RESULT_BACKEND", "REDIS_URL"):
            self.environment.pop(name, None)

    def command(self):
        return [self.options.programs / "ours", "worker", "-c", self.options.slots, "-l", "error"]


class OursResults(Ours):
    name = "celeriac, results"
    results, task = True, "bench.result"


class Dramatiq(Peer):
    name = "Dramatiq"

    def command(self):
        return [sys.executable, "-m", "dramatiq", "dramatiq_peer", "-p", self.options.processes,
                "-t", "8"]

    def fill(self, count):
        empty = "from dramatiq_peer import noop; print(len(noop.message('').encode()))"
        size = int(self.run(sys.executable, "-c", empty, stdout=subprocess.PIPE).stdout)
        padding = max(0, ENVELOPE_BYTES - size)
        self.python(
            "from dramatiq_peer import noop\n"
            f"for _ in range({count}):\n"
            f"    noop.send('x' * {padding})\n"
        )
        return size + padding

    def depth(self):
        return self.server.client.llen("dramatiq:default")

    def send_stamps(self, count):
        self.python(
            "import random, time\n"
            "from dramatiq_peer import stamp\n"
            f"for _ in range({count}):\n"
            "    time.sleep(random.uniform(0.01, 0.03))\n"
            "    stamp.send(time.time())\n"
        )


class DramatiqResults(Dramatiq):
    name = "Dramatiq, results"
    results = True


class Apalis(Peer):
    name = "apalis 1.0"
    # Its worker ends with an error when more are due at once: a script of its unpacks them all.
    tasks_max = 7000

    def command(self):
        return [self.options.programs / "apalis", "work", self.options.slots]

    def fill(self, count):
        padding = ENVELOPE_BYTES - len('{"sent_at":null,"padding":""}')
        self.run(self.options.programs / "apalis", "fill", count, padding)
        return ENVELOPE_BYTES

    def depth(self):
        # A push goes through the scheduled set; the worker moves it on.
        client = self.server.client
        return client.zcard("bench:scheduled") + client.llen("bench:active")

    def send_stamps(self, count):
        self.run(self.options.programs / "apalis", "stamps", count)


PEERS = [CeleryPrefork, CeleryThreads, Dramatiq, Apalis, Ours, CeleryResults, DramatiqResults,
         OursResults]


# -- one measurement ---------------------------------------------------------------------------


def end(worker):
    try:
        os.killpg(worker.pid, signal.SIGTERM)
        worker.wait(20)
    except (ProcessLookupError, subprocess.TimeoutExpired):
        pass
    try:
        os.killpg(worker.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    worker.wait()


def drain(peer, count):
    """Drains a preloaded backlog; everything is taken between a tenth and nine tenths of it, so that
    neither the start of the program nor its last fetch counts."""
    size = peer.fill(count)
    assert peer.depth() >= count, (peer.name, peer.depth())
    worker = peer.start()
    marks = []
    deadline = time.monotonic() + PATIENCE
    try:
        for part in (0.9, 0.1):
            while (depth := peer.depth()) > count * part:
                if time.monotonic() > deadline or worker.poll() is not None:
                    log = (peer.folder / "worker.log").read_text()[-2000:]
                    raise RuntimeError(f"{peer.name} does not drain its backlog ({depth} left)\n{log}")
                time.sleep(0.005)
            marks.append((time.monotonic(), depth, cpu_of_tree(worker.pid), peer.server.cpu()))
        memory = memory_of_tree(worker.pid)
    finally:
        end(worker)
    (t0, d0, w0, b0), (t1, d1, w1, b1) = marks
    tasks = d0 - d1
    return {
        "tasks": tasks,
        "message_bytes": size,
        "seconds": t1 - t0,
        "tasks_per_second": tasks / (t1 - t0),
        "worker_cpu_seconds": w1 - w0,
        "tasks_per_core_second": tasks / max(w1 - w0, 1 / TICKS),
        "broker_cpu_us_per_task": (b1 - b0) / tasks * 1e6,
        "worker_pss_mib": memory,
    }


def latency(peer, count):
    """How long after its sending a task begins, on an idle worker."""
    peer.stamps_file.unlink(missing_ok=True)
    worker = peer.start()
    try:
        peer.send_stamps(5)
        wait_for_lines(peer, worker, 5)
        peer.stamps_file.unlink()
        peer.send_stamps(count)
        values = wait_for_lines(peer, worker, count)
    finally:
        end(worker)
    return {
        "pickup_p50_ms": percentile(values, 0.5) / 1000,
        "pickup_p99_ms": percentile(values, 0.99) / 1000,
    }


def wait_for_lines(peer, worker, count):
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline and worker.poll() is None:
        lines = peer.stamps_file.read_text().split() if peer.stamps_file.exists() else []
        if len(lines) >= count:
            return [float(line) for line in lines]
        time.sleep(0.05)
    log = (peer.folder / "worker.log").read_text()[-2000:]
    raise RuntimeError(f"{peer.name} does not pick up its tasks\n{log}")


def measure(kind, options, count):
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        server = Server(Path(folder))
        try:
            peer = kind(options, server, Path(folder))
            figures = drain(peer, count)
            if options.stamps and not peer.results:
                server.client.flushall()
                try:
                    figures.update(latency(peer, options.stamps))
                except RuntimeError as error:
                    # The other figures stand.
                    print(error, file=sys.stderr)
            return figures
        finally:
            server.close()


COLUMNS = [
    ("tasks_per_second", "tasks/s", "{:,.0f}"),
    ("tasks_per_core_second", "tasks per worker core-s", "{:,.0f}"),
    ("broker_cpu_us_per_task", "broker CPU µs/task", "{:.0f}"),
    ("pickup_p50_ms", "pickup p50 ms", "{:.2f}"),
    ("pickup_p99_ms", "pickup p99 ms", "{:.2f}"),
    ("worker_pss_mib", "worker MiB", "{:.0f}"),
]


def table(report):
    lines = ["| |" + "".join(f" {title} |" for _, title, _ in COLUMNS) + " rounds |"]
    lines.append("|---" * (len(COLUMNS) + 2) + "|")
    for name, rounds in report["peers"].items():
        cells = []
        for key, _, form in COLUMNS:
            values = [one[key] for one in rounds if key in one]
            cells.append(form.format(statistics.median(values)) if values else "–")
        lines.append(f"| {name} | " + " | ".join(cells) + f" | {len(rounds)} |")
    return "\n".join(lines)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--programs", type=Path, default=HERE / "programs/target/release",
                        help="where the programs of bench/programs are built")
    parser.add_argument("--tasks", type=int, default=20_000, help="the backlog of the Python peers")
    parser.add_argument("--fast-tasks", type=int, default=200_000,
                        help="the backlog of celeriac, which drains the other too fast to be measured")
    parser.add_argument("--rounds", type=int, default=3, help="the table shows medians")
    parser.add_argument("--processes", default="2", help="processes of the Python peers")
    parser.add_argument("--slots", default="64", help="concurrency of celeriac and apalis")
    parser.add_argument("--stamps", type=int, default=300, help="samples of the pickup latency; 0: none")
    parser.add_argument("--only", help="peers whose name contains this")
    parser.add_argument("--json", type=Path, help="where the figures go besides the table")
    return parser.parse_args()


def versions():
    import celery
    import dramatiq

    server = subprocess.run(["redis-server", "--version"], stdout=subprocess.PIPE, text=True).stdout
    return {
        "celery": celery.__version__,
        "dramatiq": dramatiq.__version__,
        "redis": server.split("v=")[1].split()[0],
        "python": sys.version.split()[0],
        "cores": os.cpu_count(),
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def main():
    options = arguments()
    options.programs = options.programs.resolve()
    chosen = [kind for kind in PEERS if not options.only or options.only in kind.name]
    report = {"versions": versions(), "peers": {kind.name: [] for kind in chosen}}
    for turn in range(options.rounds):
        # A different order each time: what heats or disturbs the machine hits everybody.
        for kind in random.sample(chosen, len(chosen)):
            count = options.fast_tasks if kind.fast else options.tasks
            try:
                figures = measure(kind, options, min(count, kind.tasks_max or count))
            except (RuntimeError, AssertionError, subprocess.CalledProcessError, OSError) as error:
                print(f"round {turn + 1}: {kind.name} failed: {error}", file=sys.stderr)
                continue
            report["peers"][kind.name].append(figures)
            print(f"round {turn + 1}: {kind.name}: {figures['tasks_per_second']:,.0f} tasks/s",
                  file=sys.stderr)
    print(table(report))
    if options.json:
        options.json.write_text(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
