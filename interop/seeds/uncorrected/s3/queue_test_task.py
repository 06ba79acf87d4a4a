from consultantos.jobs.tasks import check_monitor_task

# Queue task with normal priority
result = check_monitor_task.apply_async(
    args=["monitor_123"],
    priority=5,
    queue="normal",
)

print(f"Task ID: {result.id}")
print(f"Task Status: {result.status}")
