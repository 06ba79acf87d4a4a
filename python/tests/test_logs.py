"""The log of a child is Celery's own."""

import sys
import unittest

from harness import Folder, Template

PROJ = """
import logging
import sys
from celery import Celery, signals
from celery.utils.log import get_task_logger
app = Celery("proj", broker="redis://127.0.0.1:1/0", backend="cache+memory://")
log = get_task_logger(__name__)

@app.task
def says():
    log.info("from the task logger")
    logging.getLogger("other").warning("from another logger")
    print("printed")
    sys.__stdout__.write("raw")
"""


class Logs(unittest.TestCase):
    def run_says(self, extra="", **start):
        folder = Folder({"proj.py": PROJ + extra})
        self.addCleanup(folder.remove)
        template = Template(folder, **start)
        self.addCleanup(template.stop)
        template.hello()
        child = template.fork()
        self.assertEqual(child.do("proj.says", task_id="i").state, "success")
        child.send("X", 0, {})
        template.exit_of(child)
        child.output.seek(0)
        self.out = child.output.read().decode()
        self.folder = folder
        self.template = template
        return child.log()

    def test_formats_names_and_order(self):
        extra = """
app.conf.worker_log_format = "M %(levelname)s %(name)s %(processName)s %(message)s"
app.conf.worker_task_log_format = (
    "T %(levelname)s %(name)s %(processName)s %(task_name)s %(task_id)s %(message)s"
)
"""
        lines = self.run_says(extra).splitlines()
        self.assertEqual(
            lines[:4],
            [
                "M INFO celery.worker.strategy MainProcess Task proj.says[i] received",
                "T INFO proj ForkPoolWorker-1 proj.says i from the task logger",
                "M WARNING other ForkPoolWorker-1 from another logger",
                "M WARNING celery.redirected ForkPoolWorker-1 printed",
            ],
        )
        self.assertTrue(
            lines[4].startswith("M INFO celery.app.trace ForkPoolWorker-1 Task proj.says[i] succeeded in "),
            lines,
        )
        self.assertEqual(self.out, "raw")

    def test_the_default_level_is_warning(self):
        log = self.run_says(loglevel=None)
        self.assertNotIn("received", log)
        self.assertIn("WARNING/ForkPoolWorker-1] printed", log)

    def test_debug_has_the_lines_of_the_main_process(self):
        log = self.run_says(loglevel="DEBUG")
        self.assertRegex(log, r"DEBUG/MainProcess\] Task accepted: proj.says\[i\] pid:\d+")

    def test_output_that_is_not_redirected_is_not_lost(self):
        log = self.run_says("app.conf.worker_redirect_stdouts = False\n")
        self.assertNotIn("printed", log)
        self.assertEqual(self.out, "printed\nraw")

    def test_logging_that_the_app_sets_up_stays(self):
        log = self.run_says("""
@signals.setup_logging.connect
def setup(**kwargs):
    logging.basicConfig(format="mine %(message)s", level="INFO", stream=sys.__stderr__)
""")
        self.assertIn("mine Task proj.says[i] received", log)
        self.assertIn("mine from the task logger", log)

    def test_a_file_for_every_child(self):
        log = self.run_says(logfile="%n-%i.log")
        self.assertNotIn("received", log)
        self.assertIn("Task proj.says[i] received", (self.folder.path / "w1-1.log").read_text())

    def test_colours_are_for_terminals(self):
        self.assertNotIn("\x1b", self.run_says(color=True))

    def test_the_template_writes_to_its_own_output(self):
        self.run_says("print('while loading')\nlogging.getLogger('x').error('early')\n")
        printed = self.template.printed()
        self.assertIn("while loading", printed)
        self.assertIn("early", printed)
        self.assertNotIn("received", printed)


if __name__ == "__main__":
    unittest.main(argv=sys.argv)
