"""The worker program of the clean queue: `python -m agq.workers.clean_worker`."""

from .base_worker import start

if __name__ == "__main__":
    start("clean")
