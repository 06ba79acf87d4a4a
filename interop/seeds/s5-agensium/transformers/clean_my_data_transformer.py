"""Stand-in for the clean tool, with the interface that the seed calls (T-26: not that of S1)."""

from services import faults
from services.s3_service import s3_service

from . import clean, read_rows, write_report


async def run_clean_my_data_analysis_v2_1(task, current_user, db):
    faults.wait_at("hold-" + task.task_id)
    faults.wait_deaf_at("deaf-" + task.task_id)
    faults.strike("transformer", ConnectionError("the transformer lost its connection"))
    rows = read_rows(s3_service, current_user.id, task.task_id)
    report = clean(rows)
    write_report(s3_service, current_user.id, task.task_id, report)
    return {"status": "success", "report": report}
