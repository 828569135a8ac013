"""
mitmproxy's HTTP/1, which keeps whatever a peer sends ahead of what is read, waits for more behind an empty line, takes
an upstream's interim response (103) for the final one, crashes on trailers, and sends what came by HTTP/2 without
saying where it ends: taught better. `addons.internals` puts it in place.
"""

import re
import time
from collections.abc import Callable
from typing import Any

from h11 import Data, EndOfMessage, LocalProtocolError
from h11._readers import ChunkedReader, ContentLengthReader
from mitmproxy import http
from mitmproxy.net.http.http1 import assemble_response
from mitmproxy.proxy import commands, events, layer
from mitmproxy.proxy.layers.http import _http1
from mitmproxy.proxy.layers.http._base import ReceiveHttp
from mitmproxy.proxy.layers.http._events import (
    ErrorCode,
    HttpEvent,
    RequestData,
    RequestHeaders,
    RequestTrailers,
    ResponseData,
    ResponseTrailers,
)

from addons import bounds
from sidecar.problem import MEDIA_TYPE, Problem
from sidecar.reasons import Reason

CHUNK_BYTES = 1 << 62  # that a chunk may still have to come
_TOGETHER_BYTES = 65_536  # of small chunks

_HEAD_END = re.compile(rb"\n\r?\n")
_INTERIM = re.compile(rb"HTTP/1\.[01] 1(?!01)[0-9][0-9][ \r\n]")  # RFC 9110, section 15.2; 101 is a final one

_stock_handle_event: Callable[[Any, Any], layer.CommandGenerator[None]] = _http1.Http1Connection._handle_event
_stock_read_headers: Callable[[Any, Any], layer.CommandGenerator[None]] = _http1.Http1Client.read_headers
_stock_read_request: Callable[[Any, Any], layer.CommandGenerator[None]] = _http1.Http1Server.read_headers
_stock_send_request: Callable[[Any, Any], layer.CommandGenerator[None]] = _http1.Http1Client.send
_stock_send_answer: Callable[[Any, Any], layer.CommandGenerator[None]] = _http1.Http1Server.send


_stock_client_init: Callable[[Any, Any], None] = _http1.Http1Client.__init__
_BOUND = re.compile(r"\s*(ntlm|negotiate)\b", re.IGNORECASE)  # RFC 4559, section 5: of the connection, not the request


def install() -> None:
    """Replace these parts of mitmproxy's; a second call changes nothing."""
    _http1.Http1Client.__init__ = _client_init  # type: ignore[method-assign]
    _http1.Http1Connection._handle_event = _handle_event  # type: ignore[method-assign]
    _http1.Http1Client.read_headers = _read_headers  # type: ignore[method-assign]
    _http1.Http1Server.read_headers = _read_request  # type: ignore[method-assign]
    _http1.Http1Client.send = _send_request  # type: ignore[method-assign]
    _http1.Http1Server.send = _send_answer  # type: ignore[method-assign]
    _http1.ChunkedReader = Chunked  # type: ignore[attr-defined]
    _http1.make_error_response = _error_response  # type: ignore[assignment]
    _http1.Http1Connection.head = None  # type: ignore[attr-defined]  # the stream whose head has begun, and when
    _http1.Http1Connection.interim = 0  # type: ignore[attr-defined]  # responses to the request under way


def _error_response(status: int, message: str = "") -> bytes:
    """What mitmproxy itself answers with, as a problem document like all our answers; the connection is closed."""
    reason = reason_of(status)
    headers = {"content-type": MEDIA_TYPE, "cache-control": "no-store", "connection": "close"}
    raw: bytes = assemble_response(http.Response.make(status, Problem(status, reason, plain(message)).body(), headers))
    return raw


def reason_of(status: int) -> Reason:
    """Why mitmproxy, or one of our limits, answers with this."""
    of_limits = {408: Reason.HEAD_TOO_SLOW, 431: Reason.HEAD_TOO_LARGE}
    return of_limits.get(status, Reason.MALFORMED_REQUEST if status < 500 else Reason.UPSTREAM_PROTOCOL)


def plain(message: str) -> str:
    """mitmproxy's words without its advice to switch the check off, which nobody can here."""
    return message.partition(", refusing to prevent")[0]


def _handle_event(self: Any, event: events.Event) -> layer.CommandGenerator[None]:
    """As stock, but a head may be only so large and take only so long, and no peer be far ahead of what is read."""
    if isinstance(event, HttpEvent):
        yield from self.send(event)
        return
    if isinstance(event, events.DataReceived):
        if _is_all_body(self, event.data):
            self.body_reader._remaining -= len(event.data)
            yield ReceiveHttp(self.ReceiveData(self.stream_id, event.data))
            return
        if self.state != self.passthrough:
            self.buf += event.data
    elif isinstance(event, events.Wakeup):
        yield from _look_at_head(self)
        return
    limits = bounds.limits
    # A head that is too large may come to its end in the very piece that makes it so.
    if (
        self.state != self.read_headers
        or len(self.buf) <= limits.head_bytes
        or _HEAD_END.search(bytes(self.buf), 0, limits.head_bytes)
    ):
        yield from self.state(event)
        if not (size := len(self.buf)):
            return
        begun = self.state == self.read_headers
        if size <= (limits.head_bytes if begun else limits.unread_bytes):
            if begun and isinstance(self, _http1.Http1Server) and isinstance(event, events.DataReceived):
                yield from _expect_head(self)
            return
    reading_head, is_server = self.state == self.read_headers, isinstance(self, _http1.Http1Server)
    self.buf.maybe_extract_at_most(len(self.buf))
    if self.state == self.done:
        return
    self.state = self.done
    limit = "head_bytes" if reading_head else "unread_bytes"
    if is_server:
        if reading_head:
            text = f"the head of the request is larger than {bounds.limits.head_bytes} bytes"
            yield from _refuse_head(self, limit, 431, text)
            return
        text, code = "the client has sent more than can be read yet", ErrorCode.GENERIC_CLIENT_ERROR
    else:
        text, code = "the upstream has sent too large a head or trailer", ErrorCode.GENERIC_SERVER_ERROR
    bounds.reached(self.context.client.id, limit, text, ends=is_server)
    yield commands.CloseConnection(self.conn)
    if self.stream_id is not None:
        yield ReceiveHttp(self.ReceiveProtocolError(self.stream_id, text, code))


def _is_all_body(self: Any, data: bytes) -> bool:
    """Whether *data* is from the middle of a body with a length: through a buffer, it would be copied three times."""
    return (
        self.state == self.read_body
        and type(self.body_reader) is ContentLengthReader
        and 0 < len(data) < self.body_reader._remaining
        and not self.buf
    )


def _expect_head(self: Any) -> layer.CommandGenerator[None]:
    """Part of a head is there: the rest has to come in time. At most one wake-up is on its way."""
    watched = self.head is not None
    if not watched or self.head[0] != self.stream_id:
        self.head = (self.stream_id, time.monotonic())
    if not watched:
        yield commands.RequestWakeup(bounds.limits.head_seconds)


def _look_at_head(self: Any) -> layer.CommandGenerator[None]:
    (stream_id, began), self.head = self.head, None
    if self.state != self.read_headers or stream_id != self.stream_id or not self.buf:
        return
    left = began + bounds.limits.head_seconds - time.monotonic()
    if left > 0.001:
        self.head = (stream_id, began)
        yield commands.RequestWakeup(left)
        return
    self.state = self.done
    text = f"the head of a request was not whole within {bounds.limits.head_seconds:g} s"
    yield from _refuse_head(self, "head_seconds", 408, text)


def _refuse_head(self: Any, limit: str, status: int, text: str) -> layer.CommandGenerator[None]:
    bounds.reached(self.context.client.id, limit, text)
    yield commands.SendData(self.conn, _http1.make_error_response(status, text))
    yield commands.CloseConnection(self.conn)


def _read_headers(self: Any, event: events.Event) -> layer.CommandGenerator[None]:
    """As stock, but interim responses are skipped, as mitmproxy does for HTTP/2: the final one is still to come."""
    while isinstance(event, events.DataReceived) and self.request and _INTERIM.match(bytes(self.buf)):
        if self.buf.maybe_extract_lines() is None:
            return
        self.interim += 1
        if self.interim > (most := bounds.limits.interim_responses):
            text = f"the upstream has sent more than {most} interim responses"
            bounds.reached(self.context.client.id, "interim_responses", text, ends=False)
            self.buf.maybe_extract_at_most(len(self.buf))
            self.state = self.done
            yield commands.CloseConnection(self.conn)
            yield ReceiveHttp(self.ReceiveProtocolError(self.stream_id, text, ErrorCode.GENERIC_SERVER_ERROR))
            return
    yield from _stock_read_headers(self, event)
    if self.state != self.read_headers:
        self.interim = 0


def _read_request(self: Any, event: events.Event) -> layer.CommandGenerator[None]:
    """As stock, but empty lines in front of a request line are ignored (RFC 9112, section 2.2)."""
    if isinstance(event, events.DataReceived):
        while self.buf._data.startswith((b"\r\n", b"\n")):
            self.buf.maybe_extract_lines()
    yield from _stock_read_request(self, event)


def _client_init(self: Any, context: Any) -> None:
    """As stock; the connection knows what reads it, for `addons.pool`."""
    _stock_client_init(self, context)
    self.conn.http1 = self


def _send_request(self: Any, event: Any) -> layer.CommandGenerator[None]:
    """As stock; what came by HTTP/2 without a length is sent in chunks, and without its trailers."""
    if isinstance(event, RequestHeaders) and _BOUND.match(event.request.headers.get("authorization", "")):
        self.conn.http1 = None  # the connection itself is somebody's from now on: it's for no other client
    if isinstance(event, RequestTrailers) or (isinstance(event, RequestData) and not event.data):
        return  # an empty chunk would be the last
    if isinstance(event, RequestHeaders) and event.request.is_http2 and not event.end_stream:
        headers = event.request.headers
        if "content-length" not in headers:
            headers["transfer-encoding"] = "chunked"
    yield from _stock_send_request(self, event)


def _send_answer(self: Any, event: Any) -> layer.CommandGenerator[None]:
    """As stock, without trailers, and without an empty chunk, which would be the last."""
    if not isinstance(event, ResponseTrailers) and not (isinstance(event, ResponseData) and not event.data):
        yield from _stock_send_answer(self, event)


class Chunked(ChunkedReader):
    """
    Discards trailers, as RFC 9110, section 6.5.1, lets an intermediary do, and refuses a chunk of a size that overflows
    readers with 64 bits (RFC 9112, section 7.1). Small chunks that are there together are given as one: each of its own
    costs a hundred times what it costs the sender.
    """

    def __init__(self) -> None:
        super().__init__()
        self._next: Any = None  # what comes behind the data that were given

    def __call__(self, buf: Any) -> Any:
        if (event := self._next) is None:
            event = self._read(buf)
        self._next = None
        if isinstance(event, LocalProtocolError):
            raise event
        if not isinstance(event, Data) or not buf:
            return event
        pieces, size = [event.data], len(event.data)
        while size < _TOGETHER_BYTES:
            try:
                self._next = self._read(buf)
            except LocalProtocolError as e:
                self._next = e
            if not isinstance(self._next, Data):
                break
            pieces.append(self._next.data)
            size += len(self._next.data)
            self._next = None
        return Data(data=b"".join(pieces))

    def _read(self, buf: Any) -> Any:
        event = super().__call__(buf)
        if self._bytes_in_chunk > CHUNK_BYTES:
            raise LocalProtocolError("a chunk's size is too large")
        return EndOfMessage() if isinstance(event, EndOfMessage) else event
