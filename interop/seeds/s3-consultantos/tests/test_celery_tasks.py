"""Named by the seed (S3 L270, L342), not shown there. A worker must run: Celery's or celeriac's."""

import pytest
from celery.exceptions import TimeoutError as ResultTimeout

from consultantos import world
from consultantos.jobs.tasks import check_monitor_task, run_analysis_task


@pytest.fixture
def monitor():
    path = world.DATA / "monitors" / "pytest"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("7")
    return path.name


def test_a_check_is_queued_and_answered(monitor):
    result = check_monitor_task.apply_async(args=[monitor], priority=5, queue="normal")
    assert result.get(timeout=60) == {"monitor_id": monitor, "value": 7, "alert": False}
    assert check_monitor_task.AsyncResult(result.id).status == "SUCCESS"


def test_an_analysis_is_queued_and_answered():
    result = run_analysis_task.apply_async(
        args=[{"company": "Acme", "frameworks": ["swot", "porter"]}, "user"], priority=5, queue="normal")
    assert result.get(timeout=60)["total"] == world.score("Acme", "swot") + world.score("Acme", "porter")


def test_a_wrong_request_fails():
    result = run_analysis_task.apply_async(args=[{}, "user"], queue="normal")
    with pytest.raises(ValueError, match="a request names a company"):
        result.get(timeout=60)


def test_an_unknown_task_is_pending():
    with pytest.raises(ResultTimeout):
        check_monitor_task.AsyncResult("task_id").get(timeout=0.5)
