"""Stand-in for S3: a folder, S3_FOLDER says which."""

import os
import pathlib
import shutil

from . import faults


class S3Service:
    def __init__(self, folder):
        self.folder = pathlib.Path(folder)

    def _task_folder(self, user_id, task_id):
        return self.folder / str(user_id) / task_id

    def put(self, user_id, task_id, name, text):
        path = self._task_folder(user_id, task_id) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def get(self, user_id, task_id, name):
        faults.strike("s3-reset", ConnectionError("S3 reset the connection"))
        return (self._task_folder(user_id, task_id) / name).read_text()

    def delete_task_files(self, user_id, task_id):
        faults.strike("s3-delete", ConnectionError("S3 refused to delete"))
        shutil.rmtree(self._task_folder(user_id, task_id), ignore_errors=True)

    def list_files(self, prefix):
        faults.strike("s3-down", ConnectionError("S3 is down"))
        return sorted(str(path) for path in self.folder.glob(prefix + "*"))


s3_service = S3Service(os.getenv("S3_FOLDER", "s3"))
