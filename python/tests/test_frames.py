"""Frames, without Celery."""

import os
import pathlib
import socket
import sys
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from celeriac_child.frames import (  # noqa: E402
    HEAD,
    PIECE_BYTES_MAX,
    Closed,
    ControlSocket,
    JobSocket,
    ProtocolError,
    encode_json,
)


class Control(unittest.TestCase):
    def setUp(self):
        left, right = socket.socketpair()
        self.addCleanup(left.close)
        self.addCleanup(right.close)
        self.left, self.right = ControlSocket(left), ControlSocket(right)

    def test_descriptors_travel_with_their_frame(self):
        read, write = os.pipe()
        self.left.send({"op": "first"})
        self.left.send({"op": "second"}, [read, write])
        self.left.send({"op": "third"})
        self.assertEqual(self.right.receive(), ({"op": "first"}, []))
        frame, descriptors = self.right.receive()
        self.assertEqual((frame["op"], len(descriptors)), ("second", 2))
        self.assertEqual(self.right.receive(), ({"op": "third"}, []))
        os.write(descriptors[1], b"x")
        self.assertEqual(os.read(read, 1), b"x")
        for descriptor in (read, write, *descriptors):
            os.close(descriptor)

    def test_what_is_no_frame_is_refused(self):
        for data in (b"\xff\xff\xff\xff", b"\x00\x00\x00\x01{", b"\x00\x00\x00\x02[]", b"\x00\x00\x00\x02{}"):
            with self.subTest(data=data):
                self.left.sock.sendall(data)
                with self.assertRaises(ProtocolError):
                    self.right.receive()

    def test_the_end_of_the_stream_is_told(self):
        self.left.sock.shutdown(socket.SHUT_WR)
        with self.assertRaises(Closed):
            self.right.receive()


class Job(unittest.TestCase):
    def setUp(self):
        left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.addCleanup(left.close)
        self.addCleanup(right.close)
        self.left, self.right = JobSocket(left), JobSocket(right)

    def test_payloads_of_every_size_arrive_whole(self):
        for size in (
            0,
            1,
            PIECE_BYTES_MAX - 3,
            PIECE_BYTES_MAX - 2,
            PIECE_BYTES_MAX - 1,
            3 * PIECE_BYTES_MAX,
        ):
            with self.subTest(size=size):
                body = os.urandom(size)
                self.left.send(82, 7, b"{}", body)
                self.assertEqual(self.right.receive(), (82, 7, {}, body))

    def test_a_meta_larger_than_a_piece_arrives_whole(self):
        meta = {"headers": "x" * (2 * PIECE_BYTES_MAX)}
        self.left.send(82, 7, encode_json(meta), b"body")
        self.assertEqual(self.right.receive(), (82, 7, meta, b"body"))

    def test_what_breaks_the_rules_is_refused(self):
        head = HEAD.pack
        for datagrams in (
            [b"short"],
            [head(82, 0, 1, 9) + b"{}"],
            [head(82, 0, 1, 1) + b"{"],
            [head(82, 2, 1, 2) + b"{}"],
            [head(82, 1, 1, 2) + b"{}", head(82, 0, 2, 2) + b"x"],
            [head(82, 1, 1, 2) + b"{}", b"short"],
            [b"x" * (HEAD.size + PIECE_BYTES_MAX + 1)],
        ):
            with self.subTest(datagrams=[datagram[:20] for datagram in datagrams]):
                for datagram in datagrams:
                    self.left.sock.send(datagram)
                with self.assertRaises(ProtocolError):
                    self.right.receive()

    def test_a_lone_surrogate_does_not_break_the_text(self):
        encode_json({"text": "\udc80 \ud800"}).decode("utf-8")


if __name__ == "__main__":
    unittest.main()
