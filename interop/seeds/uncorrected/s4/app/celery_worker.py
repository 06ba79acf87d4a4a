task_routes={
    "app.tasks.collect_tasks.*": {"queue": "collect"},
    "app.tasks.report_tasks.*": {"queue": "report"},
    "app.tasks.etl_tasks.*": {"queue": "etl"},
    "app.tasks.system_tasks.*": {"queue": "system"},
}
