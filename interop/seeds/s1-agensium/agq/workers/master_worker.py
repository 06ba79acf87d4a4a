"""The worker program of the master queue: `python -m agq.workers.master_worker`."""

from .base_worker import start

if __name__ == "__main__":
    start("master")
