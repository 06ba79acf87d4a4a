"""Builds the wheel as its users get it, and uses it as they do: in an environment of its own, outside
the repository, with no environment activated.

Run by scripts/test.sh with the Python of the newest Celery, whose packages the new environment borrows.
"""

from __future__ import annotations

import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import threading
import unittest
import venv
import zipfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "python" / "tests"))

from harness import Folder, Redis  # noqa: E402

#: A build of everything on a slow machine.
BUILD_PATIENCE = 900
PATIENCE = 60


def environments() -> pathlib.Path:
    return pathlib.Path(os.environ.get("CELERIAC_VENVS") or ROOT / "target" / "venvs")


def tool(name: str) -> str:
    """A program that the tests need. Missing ones are a skip at home and a failure in CI."""
    own = environments() / "wheel" / "bin" / name
    found = str(own) if own.is_file() else shutil.which(name)
    if found is None:
        if os.environ.get("CI"):
            raise RuntimeError(f"{name} is missing")
        raise unittest.SkipTest(f"{name} is missing: scripts/test.sh --environments installs it")
    return found


def plain_environment(**more: str) -> dict:
    """What a new user's shell has: no environment is active, and nothing is configured."""
    return {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": tempfile.gettempdir(), "LANG": "C.UTF-8", **more}


def readme_app() -> str:
    """The app of the README's section for people who have a Celery app."""
    section = (ROOT / "README.md").read_text().partition("**I have a Celery app.**")[2]
    app = re.search(r"```python\n# proj\.py\n(.*?)```", section, re.DOTALL).group(1)
    if app.count("redis://localhost") != 2:
        raise AssertionError(f"not the app that this test knows:\n{app}")
    return app


class WheelTest(unittest.TestCase):
    """One wheel and one environment for all tests: they only look."""

    @classmethod
    def setUpClass(cls):
        maturin, _ = tool("maturin"), tool("redis-server")
        cls.folder = pathlib.Path(tempfile.mkdtemp(prefix="celeriac-wheel-"))
        cls.addClassCleanup(shutil.rmtree, cls.folder, ignore_errors=True)
        # The quick profile: its parts are those of the other tests' build.
        cls.maturin([maturin, "build", "--profile", "dev", "--compatibility", "linux"])
        cls.maturin([maturin, "sdist"])
        (cls.wheel,) = cls.folder.glob("*.whl")
        (cls.sdist,) = cls.folder.glob("*.tar.gz")
        cls.venv = cls.folder / "venv"
        venv.create(cls.venv, with_pip=True)
        cls.python = cls.venv / "bin" / "python"
        cls.program = cls.venv / "bin" / "celeriac"
        pip = [cls.python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-index"]
        subprocess.run([*pip, cls.wheel], check=True, timeout=PATIENCE, env=plain_environment())
        cls.borrow_celery()

    @classmethod
    def maturin(cls, command: list) -> None:
        done = subprocess.run(
            [*command, "--out", cls.folder],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=BUILD_PATIENCE,
        )
        if done.returncode:
            raise AssertionError(f"{command[1]} failed:\n{done.stdout}")

    @classmethod
    def borrow_celery(cls) -> None:
        """The packages beside this test's Celery, in the new environment too."""
        theirs = pathlib.Path(sysconfig.get_path("purelib"))
        (ours,) = cls.venv.glob("lib/python*/site-packages")
        for package in theirs.iterdir():
            if not (ours / package.name).exists():
                (ours / package.name).symlink_to(package)

    def run_program(self, *command, cwd=None, **more: str) -> str:
        done = subprocess.run(
            [str(part) for part in command],
            cwd=cwd or self.folder,
            env=plain_environment(**more),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            timeout=PATIENCE,
        )
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        return done.stdout

    def test_the_program_and_the_package_say_their_version(self):
        said = self.run_program(self.program, "--version")
        self.assertRegex(said, r"^celeriac \d+\.\d+\.\d+\n$")
        self.assertEqual(self.run_program(self.python, "-m", "celeriac", "--version"), said)
        look = "import celeriac; print(celeriac.find_celeriac_bin(), celeriac.__version__)"
        path, version = self.run_program(self.python, "-c", look).split()
        self.assertEqual((path, f"celeriac {version}\n"), (str(self.program), said))

    def test_the_package_is_found_in_other_layouts(self):
        target = self.folder / "target"
        pip = (self.python, "-m", "pip", "install", "--quiet", "--no-index", "--disable-pip-version-check")
        self.run_program(*pip, "--target", target, self.wheel)
        look = "import celeriac; print(celeriac.find_celeriac_bin())"
        other = self.folder / "other"
        venv.create(other)
        path = self.run_program(other / "bin" / "python", "-c", look, PYTHONPATH=str(target))
        self.assertEqual(path.strip(), str(target / "bin" / "celeriac"))
        (target / "bin" / "celeriac").unlink()
        said = subprocess.run(
            [other / "bin" / "python", "-m", "celeriac", "worker"],
            env=plain_environment(PYTHONPATH=str(target)),
            stderr=subprocess.PIPE,
            text=True,
        )
        self.assertEqual(said.returncode, 1)
        self.assertIn("pip install --force-reinstall celeriac", said.stderr)
        self.assertNotIn("Traceback", said.stderr)

    def test_the_wheel_has_what_it_should(self):
        with zipfile.ZipFile(self.wheel) as wheel:
            names = wheel.namelist()
            (metadata,) = (name for name in names if name.endswith(".dist-info/METADATA"))
            lines = wheel.read(metadata).decode().splitlines()
        for line in (
            "Name: celeriac",
            "Requires-Python: >=3.9",
            "License-Expression: MIT OR Apache-2.0",
            "Description-Content-Type: text/markdown; charset=UTF-8; variant=GFM",
        ):
            self.assertIn(line, lines)
        self.assertEqual([line for line in lines if line.startswith("Requires-Dist")], [])
        ours = sorted(name for name in names if name.startswith("celeriac/"))
        package = ("__init__.py", "__main__.py", "_program.py", "apscheduler.py", "py.typed")
        self.assertEqual(ours, [f"celeriac/{name}" for name in package])
        for licence in ("LICENSE-APACHE", "LICENSE-MIT"):
            self.assertTrue(any(name.endswith(f"/licenses/{licence}") for name in names), names)
        # The worker's Python half is inside the program.
        self.assertFalse(any("celeriac_child" in name for name in names), names)

    def test_the_sdist_has_the_sources_and_no_links(self):
        with tarfile.open(self.sdist) as sdist:
            members = {member.name.partition("/")[2]: member for member in sdist.getmembers()}
        self.assertEqual([name for name, member in members.items() if member.issym()], [])
        shim = {path.name for path in (ROOT / "python" / "celeriac_child").glob("*.py")}
        packed = {
            pathlib.PurePath(name).name
            for name in members
            if re.fullmatch(r"crates/celeriac/python/\w+\.py", name)
        }
        self.assertEqual(packed, shim)
        for name in ("Cargo.lock", "pyproject.toml", "python/celeriac/__init__.py", "README.md"):
            self.assertIn(name, members)

    def test_the_app_of_the_readme_runs(self):
        redis = Redis()
        self.addCleanup(redis.stop)
        folder = Folder({"proj.py": readme_app().replace("redis://localhost", redis.url)})
        self.addCleanup(folder.remove)
        shown = self.run_program(self.program, "--json", "-A", "proj", "config", "show", cwd=folder.path)
        rows = {row["key"]: row for row in json.loads(shown)}
        self.assertEqual(rows["python"]["value"], str(self.python))
        self.assertEqual(rows["python"]["source"], "found in celeriac's own environment")
        by_name = (self.python, "-m", "celeriac", "--json", "-A", "proj", "config", "show")
        rows = {row["key"]: row for row in json.loads(self.run_program(*by_name, cwd=folder.path))}
        self.assertEqual(rows["python"]["source"], "environment CELERIAC_PYTHON")
        with Worker([self.program, "-A", "proj", "worker", "-l", "info", "-c", "2"], folder.path) as worker:
            call = "from proj import add; print(add.delay(2, 3).get(timeout=30))"
            said = self.run_program(self.python, "-c", call, cwd=folder.path)
            self.assertEqual(said, "5\n", worker.log())
            self.assertEqual(worker.stop(), 0, worker.log())


class Worker:
    """A worker that is ready; it ends with the block."""

    def __init__(self, command: list, folder: pathlib.Path):
        self.process = subprocess.Popen(
            [str(part) for part in command],
            cwd=folder,
            env=plain_environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._lines = []
        self._ready = threading.Event()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        for line in self.process.stdout:
            self._lines.append(line)
            if line.endswith(" ready.\n"):
                self._ready.set()
        # Whoever waits for one that has ended need not wait on.
        self._ready.set()

    def __enter__(self) -> Worker:
        if not self._ready.wait(PATIENCE) or self.process.poll() is not None:
            self.__exit__()
            raise AssertionError(f"the worker is not ready:\n{self.log()}")
        return self

    def __exit__(self, *error) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(PATIENCE)
        self._reader.join(PATIENCE)
        self.process.stdout.close()

    def log(self) -> str:
        return "".join(self._lines)

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(PATIENCE)


if __name__ == "__main__":
    unittest.main()
