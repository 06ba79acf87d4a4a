"""`python -m celeriac`: becomes the program, which runs apps with this Python."""

from __future__ import annotations

import os
import sys

from ._program import find_celeriac_bin


def _main() -> None:
    try:
        program = find_celeriac_bin()
    except FileNotFoundError as error:
        sys.exit(str(error))
    # Whoever names a Python means it; a `--python` among the arguments is still stronger.
    if sys.executable:
        os.environ.setdefault("CELERIAC_PYTHON", sys.executable)
    os.execv(program, [program, *sys.argv[1:]])


if __name__ == "__main__":
    _main()
