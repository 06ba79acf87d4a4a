"""The worker program of the profile queue: `python -m agq.workers.profile_worker`."""

from .base_worker import start

if __name__ == "__main__":
    start("profile")
