"""Results that the worker stores for the child, see rule 1.4 of the protocol: frames `S`."""

from __future__ import annotations

from celery import states
from celery.backends.base import BaseKeyValueStoreBackend

from .frames import PAYLOAD_BYTES_MAX, STORE, encode_json
from .turn import CURRENT

#: Methods through which a result reaches its key. When one of them is not Celery's, only the class itself
#: knows how a result is stored.
_STORING = (
    "store_result",
    "_store_result",
    "_get_result_meta",
    "_set_with_state",
    "set",
    "_set",
    "encode",
    "_encode",
    "encode_result",
    "prepare_value",
    "prepare_exception",
    "get_key_for_task",
    "_get_task_meta_for",
    "mark_as_done",
    "mark_as_failure",
    "mark_as_retry",
)
#: Room for the meta of a frame beside a result.
_META_BYTES_MAX = 1024 * 1024
#: Largest document that is kept when its run is over.
_KEPT_BYTES_MAX = 1024 * 1024


def is_own(backend) -> bool:
    """Whether a backend stores results in another way than Celery's key and value backends."""
    if not isinstance(backend, BaseKeyValueStoreBackend):
        return True
    if type(backend)._store_result is not BaseKeyValueStoreBackend._store_result:
        return True
    # backends/base.py:encode of 5.7; the worker stores documents as they are.
    if getattr(backend, "compression", None):
        return True
    for name in _STORING:
        if name in vars(backend):
            return True
        method = getattr(type(backend), name, None)
        module = getattr(method, "__module__", None) or ""
        if method is not None and not module.startswith("celery.backends."):
            return True
    return False


class DeferredResults:
    """Sends what the app's backend would write to the worker, which writes it.

    Celery still builds and encodes the document: its `_store_result` (backends/base.py, 5.2 to 5.7, class
    `BaseKeyValueStoreBackend`) runs unchanged on an instance whose `_set_with_state` sends a frame and whose
    `_get_task_meta_for` answers "pending" meanwhile. That a stored `SUCCESS` stays is the worker's rule.

    Left to the backend itself: members of a chord, whose counting may read what was stored; writes from
    other threads and outside a run; documents too large for a frame.
    """

    def __init__(self, backend, job):
        self._backend = backend
        self._job = job
        self._previous = {}
        self._store_directly = backend._store_result
        self._set_directly = backend._set_with_state
        self._read_directly = backend._get_task_meta_for
        backend._store_result = self.store
        backend._set_with_state = self.set_with_state
        backend._get_task_meta_for = self.read

    def end(self, turn) -> None:
        """The turn is over. What it stored may not be written yet when the next one begins."""
        turn.tag = 0
        if turn.documents or self._previous:
            self._previous = {
                one: value for one, value in turn.documents.items() if len(value) <= _KEPT_BYTES_MAX
            }

    def store(self, task_id, result, state, traceback=None, request=None, **options):
        """Stands for `_store_result` of the backend."""
        turn = CURRENT.get()
        if turn is None or not turn.tag or getattr(request, "chord", None):
            return self._store_directly(
                task_id, result, state, traceback=traceback, request=request, **options
            )
        turn.storing = task_id
        try:
            return self._store_directly(
                task_id, result, state, traceback=traceback, request=request, **options
            )
        finally:
            turn.storing = None

    def set_with_state(self, key, value, state):
        """Stands for `_set_with_state` of the backend."""
        turn = CURRENT.get()
        if turn is None or turn.storing is None:
            return self._set_directly(key, value, state)
        document = value.encode("utf-8", "surrogatepass") if isinstance(value, str) else bytes(value)
        if len(document) > PAYLOAD_BYTES_MAX - _META_BYTES_MAX:
            return self._set_directly(key, value, state)
        task_id = turn.storing
        task_id = task_id if isinstance(task_id, str) else task_id.decode("utf-8", "replace")
        with turn.limit:
            self._job.send(STORE, turn.tag, encode_json({"id": task_id, "state": state}), document)
        turn.documents[task_id] = value

    def read(self, task_id):
        """Stands for `_get_task_meta_for` of the backend: sees what the worker may not have written yet."""
        turn = CURRENT.get()
        if turn is None:
            return self._read_directly(task_id)
        if turn.storing is not None:
            return {"status": states.PENDING, "result": None}
        if task_id in turn.documents:
            return self._backend.decode_result(turn.documents[task_id])
        meta = self._read_directly(task_id)
        if meta["status"] == states.PENDING and task_id in self._previous:
            return self._backend.decode_result(self._previous[task_id])
        return meta
