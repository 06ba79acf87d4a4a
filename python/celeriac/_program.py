"""Finds the program that was installed together with this package."""

from __future__ import annotations

import os
import sysconfig
from collections.abc import Iterator

_NAME = "celeriac"


def find_celeriac_bin() -> str:
    """The path of the `celeriac` program. Raises `FileNotFoundError` when it is not installed."""
    folders = list(_folders())
    for folder in folders:
        path = os.path.join(folder, _NAME)
        if os.path.isfile(path):
            return path
    raise FileNotFoundError(
        f"The program {_NAME} is in none of {', '.join(folders)}: install the package again "
        f"(pip install --force-reinstall {_NAME})."
    )


def _folders() -> Iterator[str]:
    """Where installers put programs, the likeliest first."""
    yield sysconfig.get_path("scripts")
    # `pip install --user`. Python 3.9 has no public name for the scheme.
    scheme = f"{os.name}_user"
    if scheme in sysconfig.get_scheme_names():
        yield sysconfig.get_path("scripts", scheme)
    # `pip install --target FOLDER` and `--prefix FOLDER`: beside the package, and above lib/pythonX.Y.
    packages = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    yield os.path.join(packages, "bin")
    yield os.path.join(os.path.dirname(os.path.dirname(os.path.dirname(packages))), "bin")
