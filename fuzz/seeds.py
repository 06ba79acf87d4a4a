"""Writes fuzz/seeds from what real Celery wrote (crates/celeriac-wire/testdata/5.7) and a few texts beside it.

    python3 fuzz/seeds.py

Files named found-* are inputs that once broke a promise; this script leaves them alone.
"""

import base64
import bz2
import json
import lzma
import pathlib
import zlib

HERE = pathlib.Path(__file__).resolve().parent
CAPTURES = HERE.parent / "crates/celeriac-wire/testdata/5.7"
# The order of Compression::ALL, which the first byte of an input chooses from.
COMPRESSIONS = ["zlib", "bzip2", "lzma", "brotli", "zstd"]
BYTES_MAX = 2500
PER_TARGET_MAX = 24

seeds = {}


def add(target, name, data):
    """Keeps what is small and new."""
    data = data.encode() if isinstance(data, str) else data
    kept = seeds.setdefault(target, {})
    if len(data) <= BYTES_MAX and len(kept) < PER_TARGET_MAX and data not in kept.values():
        kept[name] = data


def captures():
    for path in sorted(CAPTURES.glob("*.json")):
        if path.stem not in ("isoparse", "saferepr"):
            yield path.stem, json.loads(path.read_text())


def messages():
    """One message of each capture of a producer."""
    for name, capture in captures():
        for items in capture.get("queues", {}).values():
            if name.startswith(("task_", "canvas_", "body_")) and items:
                yield name, items[0]


def signatures(value):
    if isinstance(value, dict):
        if "subtask_type" in value:
            yield value
        value = list(value.values())
    if isinstance(value, list):
        for inner in value:
            yield from signatures(inner)


def from_messages():
    for name, text in messages():
        envelope = json.loads(text)
        raw = envelope["body"]
        encoded = envelope["properties"].get("body_encoding") == "base64"
        body = base64.b64decode(raw) if encoded else raw.encode()
        compression = envelope["headers"].get("compression")
        interesting = name.split("_", 1)[1] in (
            "basic", "protocol1", "types", "stamped", "link", "kwargs", "eta_naive", "expires", "options",
            "chord", "encoding_utf8", "serializer_yaml", "serializer_msgpack", "serializer_pickle")
        if interesting:
            add("envelope", name, text)
            add("message", name, text)
            add("headers", name, json.dumps(envelope["headers"]))
            add("properties", name, json.dumps(envelope["properties"]))
        if name.startswith("task_compression_"):
            kind = name.removeprefix("task_compression_")
            kind = {"gzip": "zlib"}.get(kind, kind)
            add("compression", name, bytes([COMPRESSIONS.index(kind)]) + body)
        if envelope["content-type"] == "application/json" and not compression:
            if name != "task_protocol1":
                add("body", name, body)
            if interesting:
                add("json", name, body)
            for signature in signatures(json.loads(body)):
                add("signature", f"{name}-{len(seeds.get('signature', {}))}", json.dumps(signature))
        for kind in ("msgpack", "yaml"):
            if name == f"task_serializer_{kind}":
                add(kind, name, body)


def from_results():
    for name, capture in captures():
        if name.startswith(("result_", "group_")) and isinstance(capture.get("raw"), str):
            add("result", name, capture["raw"])
            if name in ("result_types", "group_result"):
                add("json", name, capture["raw"])
    add("result", "compressed", b"\0celery-compressed\0application/x-gzip\0" + zlib.compress(b"{}"))
    for kind, event in json.loads((CAPTURES / "events_by_type.json").read_text())["types"].items():
        add("event", kind, json.dumps(event))
    add("event", "list", "[" + json.dumps(event) + ", {}]")
    for path in sorted((CAPTURES / "control").glob("*.json")):
        for request in json.loads(path.read_text()).get("request", [])[:1]:
            add("control", path.stem, request["raw"])
    add("control", "reply", '{"w@h": {"ok": "pong"}}')
    add("control", "bare", '{"method": "rate_limit", "arguments": {"task_name": "t", "rate_limit": "1/s"}, '
        '"destination": "w@h", "pattern": "w*", "matcher": "glob", "ticket": "1", '
        '"reply_to": {"exchange": "reply.celery.pidbox", "routing_key": "r"}}')


def by_hand():
    for number, (text, _) in enumerate(json.loads((CAPTURES / "isoparse.json").read_text())):
        if number % 5 == 0:
            add("time", f"isoparse-{number}", text)
    for name, text in {"clock": "03:04:05.678+05:30", "edge": "0001-01-01T00:00:00-23:59",
                       "last": "9999-12-30T21:59:59.999999Z"}.items():
        add("time", name, text)
    deep = "[" * 255 + "]" * 255
    for name, text in {
        "numbers": "[0, -0, 1.50, 1e999, -1E-5, NaN, -Infinity, 123456789012345678901234567890]",
        "escapes": '{"\\u00e9\\ud83d\\ude00": "\\"\\\\\\/\\b\\f\\n\\r\\t\\u0000", "k": 1, "k": 2}',
        "types": json.dumps([{"__type__": kind, "__value__": value} for kind, value in [
            ("datetime", "2026-01-02T03:04:05.678901+00:00"), ("date", "2026-01-02"), ("time", "03:04:00"),
            ("decimal", "1.50"), ("uuid", {"hex": "0" * 31 + "1"}), ("bytes", "abc"), ("base64", "/wA="),
            ("money", [1, "EUR"])]]),
        "deep": deep,
        "one": "17",
    }.items():
        add("json", name, text)
    add("body", "deep", f"[[{deep[1:-1]}], {{}}, {{}}]")
    add("body", "nulls", "[null, null, null]")
    for name, text in {
        "block": "- - 1\n  - two\n- {k: v}\n- callbacks: null\n  chord: ~\n",
        "scalars": "[[0x1F, 017, 1_000, 1:30, .5, 1.0e+3, .inf, -.INF, .nan, ~, yes, Off, 2026-01-02, "
                   "2026-1-2 03:04:05.5 +2, '1', \"\\u00e9\\U0001f600\"], {}, {}]",
        "tags": "[[!!binary /wA=, !!str 1, !!float 1, !!int 7, !!timestamp 2026-01-02, !!null '', ! x], {}, {}]",
        "aliases": "- [&a {k: [1, &b x]}, *a, {<<: *a, l: *b}, {<<: [*a, *a]}]\n- {}\n- {}\n",
        "texts": "- - |\n    a\n    b\n  - >-\n    folded\n    text\n  - 'it''s'\n- {? long key : v}\n- {}\n",
        "marker": "[[{__type__: base64, __value__: YQ==}, {__type__: date, __value__: 2026-01-02}], {}, {}]",
        "protocol1": "{task: t, id: i, args: [1], kwargs: {}, eta: '2026-01-02T03:04:05'}",
    }.items():
        add("yaml", name, text)
    for name, data in {
        "widths": bytes.fromhex("9399ccffcdfffeceffffffffcfffffffffffffffffd080d18000d280000000"
                                "d38000000000000000e08080"),
        "values": bytes.fromhex("939dc0c2c3ca3f800000cb7ff8000000000000c402ff00d90161da000162db0000000163dc0001"
                                "01dd0000000102de0001a16b01df00000001a16b0280") + b"\x80",
        "keys": bytes.fromhex("9390840102c003c304c401610580"),
        "protocol1": bytes.fromhex("83a47461736ba174a26964a169a4617267739101"),
    }.items():
        add("msgpack", name, data)
    for place, packed in enumerate([zlib.compress(b"ab" * 50), bz2.compress(b"ab" * 50), lzma.compress(b"ab" * 50)]):
        add("compression", f"made-{place}", bytes([place]) + packed)
    add("compression", "empty", b"\0")
    add("compression", "brotli-empty", b"\x03\x3b")
    for place, text in enumerate(["10", "10/s", "100/m burst", "0.5/s", "3/10s", "7/d", "0", "1e3/h"]):
        add("rate", f"rate-{place}", text)
    for place, text in enumerate([
        "*/5 * * * *\nEurope/Berlin\n1774749600", "30 2 * * *\nAustralia/Lord_Howe\n1775318400",
        "0 0 29 2 mon\nAfrica/Cairo\n-9000000000", "50-10/5 22-2 25-5 nov-feb fri-mon\nUTC\n1", "@weekly\nMars\n1",
        '{"type": "interval", "every": 5400.0, "relative": true}\nAsia/Kathmandu\n1',
        '{"type": "crontab", "minute": [1, 2], "hour": 7}\nEurope/Dublin\n4200000000',
        '{"type": "solar", "event": "dawn_civil", "lat": 69.65, "lon": 18.96}\nUTC\n1774749600',
        '{"type": "once", "at": "2026-12-24T18:00:00Z"}\nUTC\n1',
    ]):
        add("schedule", f"schedule-{place}", text)
    parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    add("trace", "plain", parent)
    add("trace", "state", f"{parent}\nrojo=00f067aa0ba902b7,congo=t61rcWkgMzE")
    add("trace", "later", "cc" + parent[2:] + "-what")
    for name, text in {"direct": "celery\x06\x16\x06\x16celery\ncelery",
                       "topic": "a.#\x06\x16^a\\..*?$\x06\x16tq\na.b",
                       "odd": "a_b-ä–.*.**\x06\x16^$\x06\x16q\na_b-ä–.c.d"}.items():
        add("binding", name, text)


from_messages()
from_results()
by_hand()
for target, files in seeds.items():
    folder = HERE / "seeds" / target
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.iterdir():
        if not old.name.startswith("found-"):
            old.unlink()
    for name, data in files.items():
        (folder / name).write_bytes(data)
    print(f"{target}: {len(files)} seeds, {sum(map(len, files.values()))} bytes")
