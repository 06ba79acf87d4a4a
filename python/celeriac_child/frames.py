"""Frames of the control socket and of the job socket. Knows nothing of Celery."""

from __future__ import annotations

import array
import json
import os
import socket
import struct

#: Length of a control frame.
LENGTH = struct.Struct(">I")
#: Head of a job datagram: op, flags, tag, length of the meta.
HEAD = struct.Struct("<BBQI")
#: Flag of every datagram of a payload but the last.
MORE = 1
#: Largest piece of a payload in one datagram.
PIECE_BYTES_MAX = 128 * 1024
PAYLOAD_BYTES_MAX = 512 * 1024 * 1024
CONTROL_BYTES_MAX = 64 * 1024 * 1024
DESCRIPTORS_MAX = 8
#: What a socket may hold in each direction, when the system allows it.
BUFFER_BYTES = 4 * 1024 * 1024

READY = ord("H")
RUN = ord("R")
STORE = ord("S")
DONE = ord("D")
HEARD = ord("A")
LIMIT = ord("L")
EXIT = ord("X")
POST_MORTEM = ord("P")
TELL = ord("Y")

_SO_SNDBUFFORCE = 32
_SO_RCVBUFFORCE = 33

_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
_decode = json.JSONDecoder().decode


class ProtocolError(Exception):
    """The other side broke a rule of the protocol."""


class Closed(Exception):
    """The other side closed the socket."""


def encode_json(value) -> bytes:
    """JSON as UTF-8; a lone surrogate, for which UTF-8 has no bytes, is written as an escape."""
    return _encode(value).encode("utf-8", "backslashreplace")


class ControlSocket:
    """The stream between worker and template."""

    def __init__(self, sock: socket.socket):
        self.sock = sock

    def fileno(self) -> int:
        return self.sock.fileno()

    def close(self) -> None:
        self.sock.close()

    def send(self, frame: dict, descriptors=()) -> None:
        """Sends a frame; descriptors travel with its first byte."""
        payload = encode_json(frame)
        data = LENGTH.pack(len(payload)) + payload
        sent = 0
        if descriptors:
            rights = array.array("i", descriptors)
            sent = self.sock.sendmsg([data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
        self.sock.sendall(memoryview(data)[sent:])

    def receive(self) -> tuple[dict, list[int]]:
        """The next frame and its descriptors. Raises `Closed` at the end of the stream."""
        head, descriptors = self._take_first(LENGTH.size)
        length = LENGTH.unpack(head)[0]
        if length > CONTROL_BYTES_MAX:
            raise ProtocolError(f"a control frame of {length} bytes")
        try:
            frame = json.loads(self._take(length))
        except ValueError as error:
            raise ProtocolError("a control frame is not JSON") from error
        if not isinstance(frame, dict) or "op" not in frame:
            raise ProtocolError("a control frame has no op")
        return frame, descriptors

    def _take_first(self, count: int) -> tuple[bytes, list[int]]:
        descriptors = array.array("i")
        room = socket.CMSG_SPACE(DESCRIPTORS_MAX * descriptors.itemsize)
        data, ancillary, _, _ = self.sock.recvmsg(count, room, socket.MSG_CMSG_CLOEXEC)
        if not data:
            raise Closed
        for level, kind, content in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                descriptors.frombytes(content[: len(content) // 4 * 4])
        return data + self._take(count - len(data)), list(descriptors)

    def _take(self, count: int) -> bytes:
        data = bytearray(count)
        view = memoryview(data)
        while view:
            taken = self.sock.recv_into(view)
            if not taken:
                raise Closed
            view = view[taken:]
        return bytes(data)


class JobSocket:
    """The datagrams between the worker and one child."""

    def __init__(self, sock: socket.socket):
        self.sock = sock
        self._room = bytearray(HEAD.size + PIECE_BYTES_MAX + 1)
        self._view = memoryview(self._room)
        for forced, usual in ((_SO_SNDBUFFORCE, socket.SO_SNDBUF), (_SO_RCVBUFFORCE, socket.SO_RCVBUF)):
            try:
                sock.setsockopt(socket.SOL_SOCKET, forced, BUFFER_BYTES)
            except OSError:
                sock.setsockopt(socket.SOL_SOCKET, usual, BUFFER_BYTES)

    @classmethod
    def from_descriptor(cls, descriptor: int) -> JobSocket:
        return cls(socket.socket(fileno=descriptor))

    def receive(self, unpack_head=HEAD.unpack_from, head_bytes=HEAD.size) -> tuple[int, int, dict, bytes]:
        """The next payload: op, tag, meta, body. Raises `Closed` when the worker is gone."""
        view = self._view
        count = self.sock.recv_into(view)
        if not count:
            raise Closed
        if count < head_bytes or count == len(view):
            raise ProtocolError(f"a datagram of {count} bytes")
        op, flags, tag, meta_bytes = unpack_head(view)
        if flags:
            payload = self._receive_rest(view[:head_bytes].tobytes(), view[head_bytes:count].tobytes())
        else:
            payload = view[head_bytes:count]
        if meta_bytes > len(payload):
            raise ProtocolError("a meta longer than its payload")
        try:
            meta = _decode(str(payload[:meta_bytes], "utf-8")) if meta_bytes else {}
        except ValueError as error:
            raise ProtocolError("a meta is not JSON") from error
        return op, tag, meta, bytes(payload[meta_bytes:])

    def _receive_rest(self, head: bytes, first: bytes) -> memoryview:
        if head[1] != MORE:
            raise ProtocolError(f"unknown flags {head[1]}")
        payload = bytearray(first)
        view = self._view
        while True:
            count = self.sock.recv_into(view)
            if not count:
                raise Closed
            flags = view[1]
            same = view[0] == head[0] and view[2 : HEAD.size] == head[2:]
            if count < HEAD.size or count == len(view) or flags not in (0, MORE) or not same:
                raise ProtocolError("a datagram that does not continue the payload before it")
            payload += view[HEAD.size : count]
            if len(payload) > PAYLOAD_BYTES_MAX:
                raise ProtocolError("a payload that is too large")
            if not flags:
                return memoryview(payload)

    def send(self, op: int, tag: int, meta: bytes, body: bytes = b"") -> None:
        """Sends a payload, in pieces when it is large."""
        if len(meta) + len(body) <= PIECE_BYTES_MAX:
            self.sock.send(HEAD.pack(op, 0, tag, len(meta)) + meta + body)
            return
        if len(meta) + len(body) > PAYLOAD_BYTES_MAX:
            raise ProtocolError(f"a payload of {len(meta) + len(body)} bytes")
        # The meta and what of the body fits beside it; the rest of a large body is not copied.
        beside = max(0, PIECE_BYTES_MAX - len(meta))
        first, rest = memoryview(meta + body[:beside]), memoryview(body)[beside:]
        pieces = [*_pieces(first), *_pieces(rest)]
        more, last = HEAD.pack(op, MORE, tag, len(meta)), HEAD.pack(op, 0, tag, len(meta))
        for piece in pieces[:-1]:
            self.sock.sendmsg([more, piece])
        self.sock.sendmsg([last, pieces[-1]])


def _pieces(view: memoryview):
    return (view[at : at + PIECE_BYTES_MAX] for at in range(0, len(view), PIECE_BYTES_MAX))


def adopt(descriptor: int, onto: int) -> None:
    """Makes `descriptor` the well-known descriptor `onto`."""
    os.dup2(descriptor, onto)
    os.close(descriptor)
