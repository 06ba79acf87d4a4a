"""The tasks that the seed calls (S3 L157, L209), and those that its list of benefits needs."""

import os

from celery import Task, chain, chord, group

from consultantos import world

from .celery_app import celery_app

# Retry logic (S3 L8). T-64: 1, 5 and 15 minutes are no exponential backoff, but this list.
RETRY_SCHEDULE = [float(seconds) for seconds in os.getenv("RETRY_SCHEDULE", "60,300,900").split(",")]


class MonitoredTask(Task):
    """Retries by the schedule; what fails at last becomes a dead letter."""

    max_retries = len(RETRY_SCHEDULE)

    def retry_by_schedule(self, exc):
        countdown = RETRY_SCHEDULE[min(self.request.retries, len(RETRY_SCHEDULE) - 1)]
        return self.retry(exc=exc, countdown=countdown)

    def on_failure(self, exc, task_id, args, kwargs, einfo):
        # T-67: Celery has no dead letter queue on Redis; a queue that no worker consumes is one.
        dead_letter_task.apply_async(args=[self.name, task_id, list(args), repr(exc)])


@celery_app.task(bind=True, base=MonitoredTask, rate_limit="20/s")
def check_monitor_task(self, monitor_id):
    """Checks a monitor; an alert is sent, then escalated."""
    try:
        found = world.check(monitor_id)
    except (ConnectionError, TimeoutError) as exc:
        raise self.retry_by_schedule(exc) from exc
    if found["alert"]:
        alerted = chain(send_alert_task.s(monitor_id, found["value"]), escalate_task.s()).apply_async()
        found["alert_task_id"] = alerted.id
    return found


@celery_app.task
def send_alert_task(monitor_id, value):
    """Sends the alert."""
    return world.send_mail("alerts", f"{monitor_id} is at {value}")


@celery_app.task
def escalate_task(mail):
    """Tells the one who is on call."""
    return world.send_mail("on-call", mail)


@celery_app.task(bind=True, base=MonitoredTask)
def run_analysis_task(self, request, user_id):
    """Analyses a company by each framework at once, then writes one report."""
    if not request.get("company"):
        raise ValueError("a request names a company")
    parts = group(framework_task.s(request["company"], name) for name in request["frameworks"])
    raise self.replace(chord(parts, report_task.s(request["company"], user_id)))


@celery_app.task(bind=True, base=MonitoredTask)
def framework_task(self, company, framework):
    """One framework's share of an analysis."""
    return {"framework": framework, "score": world.score(company, framework)}


@celery_app.task
def report_task(parts, company, user_id):
    """The report of an analysis."""
    total = sum(part["score"] for part in parts)
    return {"company": company, "user_id": user_id, "parts": parts, "total": total}


@celery_app.task(ignore_result=True)
def cleanup_task():
    """Forgets the mails."""
    world.forget()


@celery_app.task
def dead_letter_task(name, task_id, args, error):
    """A dead letter: no worker consumes its queue."""
    return {"name": name, "task_id": task_id, "args": args, "error": error}
