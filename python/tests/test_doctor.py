"""What `celeriac doctor` reads in an app's files."""

import os
import pathlib
import sys
import tempfile
import textwrap
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from celeriac_child import doctor  # noqa: E402


def examine(files: dict) -> dict:
    with tempfile.TemporaryDirectory() as folder:
        for path, text in files.items():
            full = os.path.join(folder, path)
            os.makedirs(os.path.dirname(full), exist_ok=True)
            with open(full, "w", encoding="utf-8") as file:
                file.write(textwrap.dedent(text))
        return doctor.examine(folder)


def found(files: dict) -> list:
    return [(one["code"], one["file"], one["line"]) for one in examine(files)["findings"]]


class Code(unittest.TestCase):
    def test_a_bound_task_is_not_called(self):
        bound = "from celery import shared_task\n@shared_task(bind=True)\ndef work(self):\n    self.retry()\n"
        self.assertEqual(found({"a.py": bound}), [])
        called = bound + "def other():\n    work()\n"
        self.assertEqual(found({"a.py": called}), [("D-CODE-BOUND-CALL", "a.py", 6)])
        elsewhere = {"a.py": bound, "b.py": "from a import work\nwork()\n", "c.py": "work()\n"}
        self.assertEqual(found(elsewhere), [("D-CODE-BOUND-CALL", "b.py", 2)])
        self.assertEqual(found({"a.py": bound, "tests/b.py": "from a import work\nwork()\n"}), [])
        idle = "from celery import shared_task\n@shared_task(bind=True)\ndef work(self): pass\nwork()\n"
        self.assertEqual(found({"a.py": idle}), [])

    def test_another_librarys_task_is_none(self):
        other = "from invoke import task\n@task\ndef work(c):\n    return {'status': 'error'}\n"
        self.assertEqual(examine({"a.py": other})["tasks"], [])

    def test_errors_are_raised_and_not_returned(self):
        text = """
            class Other:
                def run(self):
                    return {"status": "error"}
            class Work:
                def run(self):
                    return {"success": False}
            @app.task
            def work():
                return Work().run()
            @app.task
            def good():
                return {"status": "ok"}
            def unrelated():
                return {"status": "failed"}
        """
        self.assertEqual(found({"a.py": text}), [("D-CODE-ERROR-RESULT", "a.py", 7)])

    def test_tasks_do_not_wait_for_tasks(self):
        text = """
            @app.task
            def work():
                result = add.delay(1, 2)
                return result.get()
            @app.task
            def other():
                return {}.get(1)
            def view():
                return add.delay(1, 2).get()
        """
        self.assertEqual(found({"a.py": text}), [("D-CODE-WAIT", "a.py", 5)])

    def test_variables_are_texts(self):
        for text, line in (
            ("import os\nN = os.getenv('N')\nif N > 3: pass\n", 3),
            ("import os\nN = os.environ['N']\nif random.random() < N: pass\n", 3),
            ("import os\nN = int(os.environ['N'])\nif N > 3: pass\n", None),
            ("import os\nN = os.getenv('N')\nif N > other: pass\n", None),
        ):
            expected = [("D-CODE-ENV-NUMBER", "a.py", line)] if line else []
            self.assertEqual(found({"a.py": text}), expected, text)

    def test_switches_are_read_in_one_way(self):
        for text, is_found in (
            ("os.getenv('X', 'false') == 'true'", True),
            ("os.environ.get('X', '').lower() == 'true'", True),
            ("os.environ['X'] != '1'", True),
            ("os.getenv('MODE') == 'fast'", False),
            ("other() == 'true'", False),
        ):
            self.assertEqual(bool(found({"a.py": f"import os\non = {text}\n"})), is_found, text)

    def test_coroutines_and_autodiscovery(self):
        text = "@app.task\nasync def work(): pass\napp.autodiscover_tasks(['shop', 'shop.tasks', 'queue'])\n"
        codes = found({"a.py": text, "shop/__init__.py": ""})
        place = ("D-CODE-AUTODISCOVER", "a.py", 3)
        self.assertEqual(codes, [("D-CODE-ASYNC", "a.py", 2), place, place])

    def test_what_cannot_be_read_is_said(self):
        self.assertEqual(found({"a.py": "def ("}), [("D-CODE-UNREAD", "a.py", 1)])
        self.assertEqual(found({"a.py": "def (", "venv/pyvenv.cfg": "", "venv/b.py": "def ("})[1:], [])


class Settings(unittest.TestCase):
    def test_settings_are_found_where_they_are_written(self):
        read = examine(
            {
                "proj/celery.py": """
                    app = Celery("proj", broker="redis://h/0")
                    app.config_from_object("proj.config")
                    app.conf.task_acks_late = True
                    app.conf.update(worker_prefetch_multiplier=1, task_routes={"a.*": {"queue": "q"}})
                """,
                "proj/config.py": """
                    task_time_limit = 30 * 60
                    worker_concurrency = int(os.getenv("N", 4))
                    beat_schedule = {
                        "tick": {"task": "a.tick", "schedule": 60.0},
                    }
                """,
                "other.py": "task_time_limit = 5\n",
            }
        )
        settings = {name: one["value"] for name, one in read["settings"].items()}
        self.assertEqual(
            settings,
            {
                "broker_url": "redis://h/0",
                "task_acks_late": True,
                "worker_prefetch_multiplier": 1,
                "task_routes": {"a.*": {"queue": "q"}},
                "task_time_limit": 1800,
                "worker_concurrency": {"repr": "int(os.getenv('N', 4))"},
                "beat_schedule": {"tick": {"task": "a.tick", "schedule": 60.0}},
            },
        )
        self.assertEqual(read["settings"]["task_time_limit"]["line"], 2)
        self.assertEqual(read["entries"], {"tick": {"file": "proj/config.py", "line": 5}})

    def test_django_has_a_prefix(self):
        read = examine(
            {
                "proj/celery.py": "app.config_from_object('django.conf:settings', namespace='CELERY')\n",
                "proj/settings.py": "CELERY_TASK_ACKS_LATE = True\nDEBUG = True\n",
            }
        )
        self.assertEqual(list(read["settings"]), ["task_acks_late"])

    def test_calls_and_tasks_have_their_options(self):
        text = "@app.task(queue='q', time_limit=5)\ndef f(): pass\nf.apply_async(priority=5, countdown=9)\n"
        read = examine({"a.py": text})
        task = {"queue": "q", "time_limit": 5, "name": "a.f", "file": "a.py", "line": 2}
        self.assertEqual(read["tasks"], [task])
        self.assertEqual(read["calls"], [{"priority": 5, "countdown": 9, "file": "a.py", "line": 3}])


class Files(unittest.TestCase):
    def test_variables_have_readers(self):
        env = "CELERY_TASK_TIME_LIMIT=5\nCELERY_WORKER_CONCURRENCY=2\nOTHER=1\n"
        self.assertEqual(found({".env": env}), [("D-ENV-UNREAD", ".env", 1)])
        read = "import os\nlimit = os.environ['CELERY_TASK_TIME_LIMIT']\n"
        self.assertEqual(found({".env": env, "a.py": read}), [])
        idle = "import os\ndef limit():\n    return os.environ['CELERY_TASK_TIME_LIMIT']\n"
        self.assertEqual(found({".env": env, "a.py": idle}), [("D-ENV-UNREAD", ".env", 1)])
        self.assertEqual(found({".env": env, "a.py": idle + "limit()\n"}), [])
        fields = "class S(BaseSettings):\n    celery_task_time_limit: int = 5\n"
        self.assertEqual(found({".env": env, "a.py": fields}), [])

    def test_comments_behind_values(self):
        for line, is_found in (
            ("A=false  # note", True),
            ("A='false # text'", False),
            ("A=a#b", False),
            ("# A=false # note", False),
            ("A=", False),
        ):
            self.assertEqual(bool(found({".env": line + "\n"})), is_found, line)

    def test_commands_are_read_with_their_options(self):
        text = "worker: celery -A proj worker -P gevent -c 100 \\\n  -Q a,b\n"
        text += "flower: celery -A proj flower --basic-auth=a:b\n"
        read = examine({"Procfile": text})
        self.assertEqual(read["findings"], [])
        command = read["commands"][0]
        told = [command[name] for name in ("role", "pool", "concurrency", "queues", "line")]
        self.assertEqual(told, ["worker", "gevent", "100", "a,b", 1])

    def test_compose_files(self):
        name = "docker-compose.yml"
        bad = 'redis:\n  ports: ["6379:6379"]\nbeat:\n  command: celery beat \\\n    -l info\n'
        self.assertEqual(found({name: bad}), [("D-FILE-OPEN", name, 2), ("D-FILE-YAML", name, 4)])
        good = 'redis:\n  ports: ["127.0.0.1:6379:6379"]\nbeat:\n  command: >\n    celery beat\n'
        self.assertEqual(found({"docker-compose.yml": good}), [])

    def test_logins_that_everybody_knows(self):
        for line, is_found in (
            ("FLOWER_BASIC_AUTH=admin:admin123", True),
            ("FLOWER_BASIC_AUTH=${FLOWER_BASIC_AUTH:?USER:PASSWORD}", False),
            ("# FLOWER_BASIC_AUTH=admin:admin", False),
            ("URL=redis://admin:x8Kq@h/0", False),
        ):
            self.assertEqual(bool(found({".env": line + "\n"})), is_found, line)

    def test_names_of_the_standard_library(self):
        self.assertEqual(found({"queue/__init__.py": ""}), [("D-APP-SHADOW", "queue/__init__.py", 1)])
        others = {"platform.py": "", "test/a.py": "", "app/queue.py": ""}
        self.assertEqual(found(others), [("D-APP-SHADOW", "platform.py", 1)])


if __name__ == "__main__":
    unittest.main()
