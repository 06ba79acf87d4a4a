"""The end of children: which of them do what was registered with `atexit`."""

import unittest

from harness import Folder, Template

APP = """
import atexit
import os
import sys
import threading
from celery import Celery

app = Celery("proj", backend="cache+memory://")
atexit.register(lambda: sys.stdout.write("at exit"))
atexit.register(lambda: 1 / 0)


@app.task
def leaves_a_thread():
    threading.Thread(target=threading.Event().wait).start()
"""


class Exits(unittest.TestCase):
    def said(self, pool, role):
        """What a child says when it is told to end."""
        template = Template(self.folder, pool=pool)
        try:
            template.hello()
            child = template.fork(role=role)
            if role == "worker":
                child.do("proj.leaves_a_thread")
            elif role == "shared":
                tag = child.run("proj.leaves_a_thread")
                self.assertEqual(child.receive()[:2], ("A", tag))
                self.assertEqual(child.receive()[:2], ("D", tag))
            child.send("X", 0, {})
            self.assertEqual(template.exit_of(child)["code"], 0)
            return child.printed()
        finally:
            template.stop()

    def setUp(self):
        self.folder = Folder({"proj.py": APP})
        self.addCleanup(self.folder.remove)

    def test_what_stands_for_the_main_process_ends_as_that_does(self):
        for pool, role in (("prefork", "steward"), ("threads", "shared")):
            with self.subTest(role=role):
                said = self.said(pool, role)
                # One that fails does not keep the others from it.
                self.assertIn("ZeroDivisionError", said)
                self.assertIn("at exit", said)

    def test_a_child_of_prefork_ends_as_those_of_celery(self):
        self.assertNotIn("at exit", self.said("prefork", "worker"))


if __name__ == "__main__":
    unittest.main()
