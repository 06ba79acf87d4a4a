"""How a worker starts, what it says, and how it ends."""

import re

from kit.plain import plain
from kit.play import scene


@scene("start and stop")
async def start(play):
    """Banner and ready line of the common worker, and its exit code."""
    play.afterwards(lambda: tell(play))


def tell(play):
    """The banner line by line, its lines after it, and the end."""
    text = play.worker.printed() + play.worker.text()
    banner, _, rest = text.partition("[tasks]")
    lines = [plain(line.rstrip()) for line in banner.splitlines() if line.strip()]
    play.say("banner", "\n".join(line for line in lines if not line.startswith("[2")))
    play.say("banner: tasks", "\n".join(line for line in rest.splitlines() if line.startswith("  . ")))
    ready = [plain(line) for line in text.splitlines() if re.search(r"w1@semantics ready", line)]
    play.say("ready line", "\n".join(ready))
    play.say("exit code after TERM", str(play.worker.code))
    # What mingling finds depends on who else starts.
    ours = ("MainProcess] Connected to", "mingle: searching")
    play.say("connected", "\n".join(plain(line) for line in text.splitlines() if any(one in line for one in ours)))
    stop = ("Warm shutdown", "Hitting Ctrl", "MainProcess] Initiating", "MainProcess] Shutting")
    play.say("stop", "\n".join(plain(line) for line in text.splitlines() if any(one in line for one in stop)))
