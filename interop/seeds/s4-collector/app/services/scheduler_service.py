"""Jobs in either scheduler (S4 L22-41): the functions that the seed lists, which it does not show."""

import json
import os

from app import database
from app.core.celery_beat_scheduler import KEY, client

TASK = "app.tasks.collect_tasks.execute_collect_task"


def use_celery():
    return os.getenv("USE_CELERY", "false").lower() == "true"


def _name(job_id):
    return f"collect-{job_id}"


def _legacy():
    from app.core.scheduler import scheduler

    return scheduler


def add_collect_job(job_id, seconds):
    """Adds to Celery Beat schedule or APScheduler"""
    if use_celery():
        entry = {"task": TASK, "args": [job_id], "seconds": seconds, "paused": False}
        client().hset(KEY, _name(job_id), json.dumps(entry))
    else:
        from app.tasks.collect_tasks import execute_collect_task

        _legacy().add_job(execute_collect_task.run, "interval", seconds=seconds, args=[job_id],
                          id=_name(job_id))


def remove_collect_job(job_id):
    """Removes from either scheduler"""
    if use_celery():
        client().hdel(KEY, _name(job_id))
    else:
        _legacy().remove_job(_name(job_id))


def _set_paused(job_id, paused):
    entry = json.loads(client().hget(KEY, _name(job_id)))
    client().hset(KEY, _name(job_id), json.dumps({**entry, "paused": paused}))


def pause_collect_job(job_id):
    """Pauses job execution"""
    if use_celery():
        _set_paused(job_id, True)
    else:
        _legacy().pause_job(_name(job_id))


def resume_collect_job(job_id):
    """Resumes paused jobs"""
    if use_celery():
        _set_paused(job_id, False)
    else:
        _legacy().resume_job(_name(job_id))


def get_job_status(job_id):
    """Returns job status from active scheduler"""
    if use_celery():
        from app.celery_worker import celery_app

        stored = client().hget(KEY, _name(job_id))
        if stored is None:
            return None
        # T-76: inspect sees what runs on workers that answer, not what is queued.
        active = celery_app.control.inspect(timeout=1).active() or {}
        running = any(task["name"] == TASK and task["args"] == [job_id]
                      for tasks in active.values() for task in tasks)
        return {"paused": json.loads(stored)["paused"], "running": running}
    job = _legacy().get_job(_name(job_id))
    return job and {"paused": job.next_run_time is None, "running": False}


def list_jobs():
    """Lists all scheduled jobs"""
    if use_celery():
        return sorted(key.decode() for key in client().hkeys(KEY))
    return sorted(job.id for job in _legacy().get_jobs())


def sync_from_database():
    """Schedule sync from database on startup"""
    with database.connect() as connection:
        for job_id, seconds, paused in connection.execute("SELECT job_id, seconds, paused FROM jobs"):
            add_collect_job(job_id, seconds)
            if paused:
                pause_collect_job(job_id)
