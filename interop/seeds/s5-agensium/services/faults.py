"""Stand-in for a hostile world: faults and gates that a scene puts into a folder.

A fault is a file `NAME.N`; whoever takes it fails, once. A gate is a FIFO; whoever comes to it
waits until the scene opens it.
"""

import os
import pathlib
import signal

FOLDER = pathlib.Path(os.getenv("FAULTS_FOLDER", "faults"))


def strike(name, error):
    """Raises `error` if a fault of this name is left, and uses it up."""
    for fault in sorted(FOLDER.glob(name + ".*")):
        try:
            fault.unlink()
        except FileNotFoundError:
            continue  # another process took it
        raise error


def wait_at(name):
    """Blocks while there is a closed gate of this name."""
    try:
        gate = os.open(FOLDER / name, os.O_RDONLY)
    except FileNotFoundError:
        return
    os.close(gate)


def wait_deaf_at(name):
    """As `wait_at`, as code does that hears no signals: only a kill ends it."""
    if (FOLDER / name).exists():
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1, signal.SIGTERM})
        wait_at(name)
