"""The loop that looks for due monitors (S3 L127-149). T-71: one constructor for both modes."""

import asyncio

from .tasks import check_monitor_task


class MonitoringWorker:
    def __init__(self, intelligence_monitor=None, use_celery=True, check_interval=60):
        self.intelligence_monitor = intelligence_monitor
        self.use_celery = use_celery
        self.check_interval = check_interval
        self.running = False

    async def start(self):
        self.running = True
        while self.running:
            await self.check_due(self.due())
            await asyncio.sleep(self.check_interval)

    def due(self):
        return []

    async def check_due(self, monitor_ids):
        """Queues the checks, or makes them here; gives what came of it."""
        if self.use_celery:
            return [
                check_monitor_task.apply_async(args=[monitor_id], priority=5, queue="normal")
                for monitor_id in monitor_ids
            ]
        return [self.intelligence_monitor(monitor_id) for monitor_id in monitor_ids]
