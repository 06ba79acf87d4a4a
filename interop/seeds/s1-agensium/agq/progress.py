"""Progress of a task: the seed names this file (L76) but does not show it.

What it holds stood in process_data_task (L473-482).
"""


def report_to(task, task_id):
    """A callback `(progress, agent)` that stores the state PROCESSING of a running task."""

    def progress_callback(progress: int, agent: str = None):
        """Report progress to Celery."""
        task.update_state(
            state="PROCESSING",
            meta={
                "progress": progress,
                "current_agent": agent,
                "task_id": task_id
            }
        )

    return progress_callback
