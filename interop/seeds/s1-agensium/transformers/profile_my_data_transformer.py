"""Stand-in for the profile tool, with the interface that the seed calls (T-26: not that of S5)."""

from services import faults

from . import profile, read_rows, write_report


def run_analysis_v2_1(db, user_id, task_id, s3_service, progress):
    progress(30, "reader")
    rows = read_rows(s3_service, user_id, task_id)
    faults.wait_at("hold-" + task_id)
    faults.wait_deaf_at("deaf-" + task_id)
    progress(60, "profile")
    report = profile(rows)
    progress(90, "writer")
    write_report(s3_service, user_id, task_id, report)
    return {"status": "success", "report": report}
