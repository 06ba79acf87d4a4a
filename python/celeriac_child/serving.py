"""A process that serves the frames of a job socket one after another, from its first to its last."""

from __future__ import annotations

import os
import signal
import sys

from billiard.common import reset_signals

from . import exits, logs
from .frames import EXIT, READY, Closed, ProtocolError, encode_json

EX_OK = 0
EX_FAILURE = 1
EX_PROTOCOL = 70


class Serving:
    """What the steward and the shared child have in common; billiard's loop serves the other children."""

    #: What it is called in the log.
    name = "process"
    #: The operations that it serves beside `X`.
    operations = ()

    def __init__(self, worker, job):
        self.app = worker.app
        self.hostname = worker.hostname
        self.job = job

    def __call__(self) -> None:
        """Serves until `X` or the end of the worker. Does not return."""
        code = EX_FAILURE
        try:
            reset_signals(full=True)
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            self.begin()
            self.job.send(READY, 0, encode_json({"pid": os.getpid()}))
            while True:
                self._take(*self.job.receive())
        except SystemExit as error:
            code = error.code if isinstance(error.code, int) else EX_FAILURE
        except Closed:
            pass
        except ProtocolError as error:
            logs.error("The worker broke the protocol: %s", error)
            code = EX_PROTOCOL
        except BaseException as error:
            logs.error("The %s failed: %r", self.name, error, exc_info=True)
        finally:
            try:
                self.end(code)
            finally:
                exits.leave(code)

    def _take(self, op: int, tag: int, meta: dict, body: bytes) -> None:
        if op == EXIT:
            sys.exit(EX_OK)
        if not tag or not isinstance(meta, dict) or op not in self.operations:
            raise ProtocolError(f"op {op}, tag {tag}")
        self.serve(op, tag, meta, body)

    def begin(self) -> None:
        """Makes the forked process what it is to be."""
        raise NotImplementedError

    def serve(self, op: int, tag: int, meta: dict, body: bytes) -> None:
        """Acts on a frame."""
        raise NotImplementedError

    def end(self, code: int) -> None:
        """Leaves with this code."""
