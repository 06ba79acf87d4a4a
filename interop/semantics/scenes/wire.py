"""Serializers, compressions and priorities of messages; kinds of results."""

import datetime
import importlib.util

from kit.play import scene
from kit.stage import until
from proj import wire

VALUE = {"text": "ü", "list": [1, 2.5, None], "nested": {"yes": True}}
MODULES = {"yaml": "yaml", "msgpack": "msgpack", "brotli": "brotli"}


async def sent(play, feature, signature, **options):
    """Says what a task made of a message."""
    result = signature.apply_async(**options)
    await until(feature, result.ready)
    play.say(feature, [result.state, result.result if result.successful() else repr(result.result)])


def there(name):
    """Whether this environment has what a format needs."""
    return importlib.util.find_spec(MODULES.get(name, "json")) is not None


@scene("serializers and compressions")
async def formats(play):
    """All of Celery's."""
    from kombu.compression import encoders

    for name in ("json", "pickle", "yaml", "msgpack"):
        if there(name):
            await sent(play, f"serializer {name}", wire.types.s(VALUE), serializer=name)
    for name in ("gzip", "bzip2", "lzma", "brotli", "zstd", "zlib"):
        known = {"gzip": "application/x-gzip", "bzip2": "application/x-bz2", "lzma": "application/x-lzma",
                 "brotli": "application/x-brotli", "zstd": "application/zstd", "zlib": "application/x-gzip"}[name]
        if known in encoders():
            await sent(play, f"compression {name}", wire.types.s(VALUE), compression=name)
    if there("msgpack"):
        await sent(play, "msgpack with bzip2", wire.types.s(VALUE), serializer="msgpack", compression="bzip2")
    await sent(play, "pickle with zlib", wire.types.s((1, 2)), serializer="pickle", compression="zlib")
    moment = datetime.datetime(2026, 1, 2, 3, 4, tzinfo=datetime.timezone.utc)
    await sent(play, "datetime in JSON", wire.types.s(moment))
    await sent(play, "bytes in JSON", wire.types.s(b"\x00\xff"))
    await sent(play, "priority", wire.types.s(1), priority=9)
    await sent(play, "headers", wire.types.s(1), headers={"tenant": "acme"})
    await sent(play, "queue", wire.types.s(1), queue="other")


@scene("kinds of results")
async def kinds(play):
    """As JSON has them, and those that it has not."""
    for what in ("null", "number", "text", "list", "tuple", "time", "decimal", "uuid", "bytes", "keys", "set",
                 "large"):
        await play.life(what, wire.gives.s(what))
