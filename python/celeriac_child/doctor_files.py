"""What `celeriac doctor` reads in files that are not Python: variables, commands, compose files."""

from __future__ import annotations

import os
import re

_COMMAND_NAMES = {"Procfile", "Makefile", "Dockerfile", "justfile"}
_COMMAND_ENDINGS = (".sh", ".ps1", ".bat", ".yml", ".yaml", ".service", ".conf", ".ini", ".toml")
_VARIABLE = re.compile(r"^\s*(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)\s*=(.*)$")
#: A value without quotes, then what looks like a comment.
_COMMENT = re.compile(r"^\s*[^\s'\"#][^'\"#]*?\s+#")
#: A command of a compose file without quotes.
_PLAIN_COMMAND = re.compile(r"^(-\s+)?(command|entrypoint):\s+[^\s|>'\"\[]")
_CELERY = re.compile(r"\bcelery(?:ac)?\b.*?\b(worker|beat|flower)\b")
_CREDENTIALS = re.compile(r"\b(admin:(?:admin\w*|password|changeme|secret)|root:root)\b", re.I)
#: What gives Flower a login.
_LOGINS = ("--basic_auth", "--basic-auth", "--auth", "FLOWER_BASIC_AUTH", "FLOWER_AUTH", "--conf")
_PUBLISHED = re.compile(r"(?<![\d.:])(?:0\.0\.0\.0:)?\d+:6379\b")
#: What Celery itself reads; its command line reads `CELERY_WORKER_…` and `CELERY_BEAT_…` for options.
_CELERYS = {
    "CELERY_BROKER_URL",
    "CELERY_BROKER_READ_URL",
    "CELERY_BROKER_WRITE_URL",
    "CELERY_RESULT_BACKEND",
    "CELERY_CONFIG_MODULE",
    "CELERY_LOADER",
    "CELERY_APP",
    "CELERY_CUSTOM_WORKER_POOL",
    "CELERY_RDB_HOST",
    "CELERY_RDB_PORT",
}
_OPTIONS = ("CELERY_WORKER_", "CELERY_BEAT_", "CELERY_EVENTS_", "CELERY_FLOWER_")


def is_read(path: str) -> bool:
    """Whether a file may say something about how the app is run."""
    name = os.path.basename(path)
    return _is_variables(path) or name in _COMMAND_NAMES or name.endswith(_COMMAND_ENDINGS)


def _is_variables(path: str) -> bool:
    name = os.path.basename(path)
    return name == ".env" or name.startswith(".env.") or name.endswith(".env")


class Text:
    """A file with its lines."""

    def __init__(self, path: str, text: str):
        self.path = path
        self.lines = text.splitlines()


class Reading:
    """What stands in the files."""

    def __init__(self, folder):
        self.folder = folder
        self.commands = []
        #: Name → where it is set, and its value.
        self.variables: dict[str, tuple[str, int, str]] = {}
        for text in folder.texts:
            if _is_variables(text.path):
                self._read_variables(text)
            else:
                self._read_commands(text)
            self._find_credentials(text)

    def _read_variables(self, text: Text) -> None:
        for number, line in enumerate(text.lines, 1):
            match = _VARIABLE.match(line)
            if not match:
                continue
            name, value = match.groups()
            self.variables.setdefault(name, (text.path, number, value.strip()))
            if _COMMENT.match(value):
                plain = value.partition("#")[0].strip()
                self.folder.find(
                    "D-ENV-COMMENT",
                    text.path,
                    number,
                    f"{name} has a comment behind its value: python-dotenv cuts it off, "
                    f"`docker run --env-file` makes it part of the value.",
                    f"Write {name}={plain} and put the comment on a line of its own.",
                )

    def _read_commands(self, text: Text) -> None:
        is_yaml = text.path.endswith((".yml", ".yaml"))
        for number, line in enumerate(text.lines, 1):
            code = line.strip()
            if code.startswith(("#", "//")):
                continue
            if is_yaml and _PLAIN_COMMAND.match(code) and code.endswith("\\"):
                self.folder.find(
                    "D-FILE-YAML",
                    text.path,
                    number,
                    "The command ends in a backslash: in YAML that is no line break, so the next option "
                    "becomes an argument that begins with a space, and is refused.",
                    "Leave the backslash out, or write the command as a list.",
                )
            self._read_celery(text, number, code)
            if _PUBLISHED.search(code) and not any("requirepass" in other for other in text.lines):
                self.folder.find(
                    "D-FILE-OPEN",
                    text.path,
                    number,
                    "Redis is published on all addresses of the machine and asks for no password: whoever "
                    "reaches the port can send tasks, which are code that workers run.",
                    "Publish 127.0.0.1:6379:6379, or give Redis a password (--requirepass) and TLS.",
                )

    def _read_celery(self, text: Text, number: int, line: str) -> None:
        # A command may go on on the next lines.
        following = " ".join([line, *(more.strip() for more in text.lines[number : number + 6])])
        command = _continued(line, following)
        match = _CELERY.search(line)
        if not match:
            return
        role = match.group(1)
        self.commands.append(
            {
                "file": text.path,
                "line": number,
                "role": role,
                "pool": _option(command, "--pool", "-P"),
                "concurrency": _option(command, "--concurrency", "-c"),
                "queues": _option(command, "--queues", "-Q"),
            }
        )
        said = "\n".join([command, *text.lines])
        if role == "flower" and not any(word in said for word in _LOGINS):
            self.folder.find(
                "D-FILE-FLOWER",
                text.path,
                number,
                "Flower is started without a login: whoever reaches it sees the arguments of all tasks.",
                "Start it with --basic-auth=USER:PASSWORD on 127.0.0.1, or behind a proxy with a login.",
            )

    def _find_credentials(self, text: Text) -> None:
        for number, line in enumerate(text.lines, 1):
            match = _CREDENTIALS.search(line)
            if match and not line.lstrip().startswith("#"):
                user = match.group(1).partition(":")[0]
                self.folder.find(
                    "D-FILE-CREDENTIALS",
                    text.path,
                    number,
                    f"A login that everybody knows ({user}:…) is set, or is used when nothing else is.",
                    "Leave the default out: a deployment without a password of its own must not start.",
                )


def _continued(line: str, following: str) -> str:
    return following if line.endswith(("\\", "`", "^")) else line


def _option(command: str, long: str, short: str) -> str | None:
    match = re.search(rf"(?:{long}[=\s]+|\s{short}\s*)([^\s\"'\]]+)", command)
    return match.group(1).rstrip(",") if match else None


def find_variables(folder, variables: dict, read: dict, settings: dict) -> None:
    """What is wrong with the environment: `read` has the names that the code reads, and by what."""
    for name, (file, line, _) in sorted(variables.items()):
        if not name.startswith("CELERY_") or name in _CELERYS or name.startswith(_OPTIONS):
            continue
        readers = read.get(name, ())
        if readers is None:
            continue
        if readers:
            who = ", ".join(sorted(readers))
            what = f"{name} is only read by {who}, which nothing in the app uses."
        else:
            what = f"{name} is read neither by Celery nor by the app's code: changing it changes nothing."
        setting = name[len("CELERY_") :].lower()
        fix = f'Read it where the setting is, as in {setting} = int(os.environ["{name}"]), or remove it.'
        folder.find("D-ENV-UNREAD", file, line, what, fix)
    for name, setting in (("CELERY_BROKER_URL", "broker_url"), ("CELERY_RESULT_BACKEND", "result_backend")):
        here = settings.get(setting)
        source = variables.get(name)
        if here is None or (source is None and name not in os.environ):
            continue
        where = f"{source[0]}:{source[1]}" if source else "the environment"
        folder.find(
            "D-ENV-OVERRIDE",
            here["file"],
            here["line"],
            f"{setting} is set here, and {name} in {where} overrules it: Celery takes the variable, "
            "whatever the code says.",
            "Set it in one place; `celeriac config show` tells which value holds and why.",
        )
