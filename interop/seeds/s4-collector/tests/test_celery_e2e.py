"""Named by the seed (S4 L126-129, L189), not shown there: its three classes, twelve tests.

A worker must run, Celery's or celeriac's; beat is not needed.
"""

import os
import uuid

import pytest
from celery.schedules import schedule

os.environ["USE_CELERY"] = "true"

from app import database, sources
from app.celery_worker import celery_app
from app.core.celery_beat_scheduler import RedisBeatScheduler, client
from app.services import scheduler_service as service
from app.tasks.collect_tasks import execute_collect_task
from app.tasks.etl_tasks import run_etl
from app.tasks.report_tasks import daily_report
from app.tasks.system_tasks import health


@pytest.fixture
def job_id():
    job_id = uuid.uuid4().int % 1_000_000
    source = f"source-{job_id}"
    (sources.DATA / f"{source}.csv").write_text(f"key,value\n{job_id},1\n{job_id + 1},2\n")
    with database.connect() as connection:
        connection.execute("INSERT INTO jobs VALUES (?, ?, 3600, 0)", (job_id, source))
    yield job_id
    service.remove_collect_job(job_id)


class TestCeleryTaskScheduling:
    def test_a_job_is_scheduled(self, job_id):
        service.add_collect_job(job_id, 3600)
        assert f"collect-{job_id}" in service.list_jobs()
        entries = RedisBeatScheduler(app=celery_app, lazy=False).schedule
        assert entries[f"collect-{job_id}"].schedule == schedule(3600)

    def test_a_job_is_paused(self, job_id):
        service.add_collect_job(job_id, 3600)
        service.pause_collect_job(job_id)
        assert service.get_job_status(job_id)["paused"]
        assert f"collect-{job_id}" not in RedisBeatScheduler(app=celery_app, lazy=False).schedule

    def test_a_job_is_resumed(self, job_id):
        service.add_collect_job(job_id, 3600)
        service.pause_collect_job(job_id)
        service.resume_collect_job(job_id)
        assert f"collect-{job_id}" in RedisBeatScheduler(app=celery_app, lazy=False).schedule

    def test_a_job_is_removed(self, job_id):
        service.add_collect_job(job_id, 3600)
        service.remove_collect_job(job_id)
        assert service.get_job_status(job_id) is None


class TestCeleryTaskExecution:
    def test_a_job_succeeds(self, job_id):
        assert execute_collect_task.delay(job_id).get(timeout=30)["new"] == 2

    def test_nothing_is_taken_twice(self, job_id):
        execute_collect_task.delay(job_id).get(timeout=30)
        assert execute_collect_task.delay(job_id).get(timeout=30)["new"] == 0

    def test_a_source_that_comes_back_is_read(self, job_id):
        (sources.FAULTS / f"away-source-{job_id}.0").touch()
        assert execute_collect_task.delay(job_id).get(timeout=30)["read"] == 2

    def test_a_job_fails(self, job_id):
        for number in range(4):
            (sources.FAULTS / f"away-source-{job_id}.{number}").touch()
        with pytest.raises(ConnectionError):
            execute_collect_task.delay(job_id).get(timeout=30)
        assert database.value("SELECT status FROM runs WHERE job_id = ?", job_id) == "failed"


class TestCeleryHealthChecks:
    def test_the_database_answers(self):
        assert health.delay().get(timeout=30) == {"database": "ok"}

    def test_workers_answer(self):
        assert celery_app.control.ping(timeout=10, limit=1)

    def test_all_queues_are_consumed(self):
        (queues,) = {tuple(sorted(queue["name"] for queue in queues))
                     for queues in celery_app.control.inspect(timeout=10, limit=1).active_queues().values()}
        assert queues == ("collect", "etl", "report", "system")

    def test_redis_answers(self):
        assert client().ping()
        assert (run_etl.s() | daily_report.s()).delay().get(timeout=30)["facts"] >= 0
