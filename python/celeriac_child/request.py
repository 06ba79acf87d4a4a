"""From a run frame to what Celery's tracer and Celery's `Request` take."""

from __future__ import annotations

from kombu.compression import decompress
from kombu.exceptions import DecodeError
from kombu.message import Message
from kombu.serialization import prepare_accept_content
from celery.exceptions import InvalidTaskError
from celery.worker import strategy
from celery.worker.request import Request as CeleryRequest
from celery.worker.request import create_request_cls
from kombu.utils.imports import symbol_by_name


class Delivery:
    """A message as the worker sent it."""

    __slots__ = (
        "tag",
        "headers",
        "properties",
        "delivery_info",
        "content_type",
        "content_encoding",
        "wire_body",
        "body",
        "decoded",
        "utc",
    )

    def __init__(self, tag: int, meta: dict, body: bytes, app):
        self.tag = tag
        self.headers = meta.get("headers") or {}
        self.properties = meta.get("properties") or {}
        self.delivery_info = meta.get("delivery_info") or {}
        self.content_type = meta.get("content_type")
        self.content_encoding = meta.get("content_encoding")
        self.wire_body = self.body = body
        self.decoded = False
        self.utc = True
        if "compression" in self.headers and self.headers["compression"]:
            self.body = _decompressed(body, self.headers["compression"])
        if "task" not in self.headers:
            self._from_protocol_1(app)

    def _from_protocol_1(self, app) -> None:
        """worker/consumer/consumer.py:on_task_received and worker/strategy.py:default, 5.2 to 5.7."""
        message = self.message(app)
        payload = message.payload
        try:
            payload["task"], payload["id"]
        except (KeyError, TypeError) as error:
            raise InvalidTaskError("Message does not name its task and id") from error
        self.body, self.headers, self.decoded, self.utc = strategy.proto1_to_proto2(message, payload)
        self.content_type = self.content_encoding = None

    def message(self, app, channel=None) -> Message:
        """The message as a transport of kombu would hand it on."""
        return Message(
            body=self.wire_body,
            delivery_tag=self.tag,
            content_type=self.content_type,
            content_encoding=self.content_encoding,
            delivery_info=self.delivery_info,
            properties=self.properties,
            headers=self.headers,
            accept=prepare_accept_content(app.conf.accept_content),
            channel=channel,
        )

    def traced(self, hostname: str) -> tuple:
        """Arguments of `fast_trace_task`, as `Request.execute_using_pool` gives them.

        The headers become the request in place, by worker/request.py:Request.__init__ of 5.2 to 5.7.
        """
        headers, properties = self.headers, self.properties
        headers["properties"] = properties
        headers["reply_to"] = properties.get("reply_to")
        headers["correlation_id"] = properties.get("correlation_id")
        headers["hostname"] = hostname
        headers["delivery_info"] = self.delivery_info
        return (headers["task"], headers["id"], headers, self.body, self.content_type, self.content_encoding)


def _decompressed(body: bytes, compression: str) -> bytes:
    try:
        return decompress(body, compression)
    except Exception as error:
        raise DecodeError(f"cannot decompress the body ({compression}): {error}") from error


def has_own_request(task) -> bool:
    """Whether a task brings its own `Request` class."""
    return symbol_by_name(task.Request) is not CeleryRequest


def build(request_class, delivery: Delivery, task, app, hostname: str, settlement):
    """A request for a delivery, as worker/strategy.py:default makes it; `settlement` hears what it wants."""
    return request_class(
        delivery.message(app),
        on_ack=settlement.on_ack,
        on_reject=settlement.on_reject,
        app=app,
        hostname=hostname,
        eventer=settlement,
        task=task,
        connection_errors=(),
        body=delivery.body,
        headers=delivery.headers,
        decoded=delivery.decoded,
        utc=delivery.utc,
    )


def build_own(delivery: Delivery, task, app, hostname: str, settlement):
    """A request of the class that the task brings, wrapped as `Strategy` would."""
    own = symbol_by_name(task.Request)
    request_class = create_request_cls(own, task, settlement, hostname, settlement, app=app)
    return build(request_class, delivery, task, app, hostname, settlement)
