"""The evaluation itself: queue evaluation, with the retries of S2 L166 and L211."""

import os
import pathlib
import subprocess
import sys

from . import storage
from .celery_app import celery_app

FAULTS = pathlib.Path(os.getenv("FAULTS_FOLDER", "faults"))


@celery_app.task(
    bind=True, autoretry_for=(ConnectionError,), retry_backoff=True, retry_jitter=True, max_retries=3)
def evaluate_code(self, eval_id, code, language):
    """Runs a program; what it does wrong is a verdict, what we do wrong is retried."""
    storage.write("UPDATE evaluations SET retry_count = ? WHERE eval_id = ?", self.request.retries, eval_id)
    storage.write("INSERT INTO runs VALUES (?)", eval_id)
    for fault in sorted(FAULTS.glob(f"sandbox-{eval_id}.*")):
        fault.unlink(missing_ok=True)
        raise ConnectionError("the sandbox does not answer")
    gate = FAULTS / f"hold-{eval_id}"
    if gate.exists():
        with gate.open():
            pass
    if language != "python":
        raise ValueError(f"no sandbox for {language}")
    try:
        ran = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, timeout=5)
        verdict = "accepted" if ran.returncode == 0 else "runtime_error"
        output = ran.stdout
    except subprocess.TimeoutExpired:
        verdict, output = "time_limit", ""
    storage.write("UPDATE evaluations SET verdict = ? WHERE eval_id = ?", verdict, eval_id)
    return {"eval_id": eval_id, "verdict": verdict, "output": output}


def cancel(task_id):
    """The cancellation API (S2 L167, L212): a waiting evaluation never runs, a running one ends."""
    celery_app.control.revoke(task_id, terminate=True)
