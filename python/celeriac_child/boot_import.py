# Text for `python -c`: reads what another scheduler has kept, for `celeriac schedule import`. What is asked for,
# with the texts of this package, comes on standard input; standard output is the answer's alone.
import sys

if sys.path and sys.path[0] == "":
    del sys.path[0]
import json, os

asked = json.loads(sys.stdin.buffer.read().decode("utf-8"))
answer = os.fdopen(os.dup(1), "w", encoding="ascii")
os.dup2(2, 1)
exec(compile(asked["files"]["celeriac_child/sources.py"], "celeriac_child/sources.py", "exec"))
sys.meta_path.insert(0, Sources(asked.pop("files")))
from celeriac_child import imports

sys.exit(imports.main(asked, answer))
