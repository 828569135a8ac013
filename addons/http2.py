"""
mitmproxy's HTTP/2, which takes whatever one side sends and keeps what the other side's window has no room for: taught
to stop reading. And the h2 library, which ends a connection for a Host that isn't `:authority`, before anybody has seen
the request: that is left to the gate. `addons.internals` puts it in place.
"""

import asyncio
import time
from typing import Any
from weakref import WeakKeyDictionary

import h2.utilities
from h2.errors import ErrorCodes
from h2.events import RequestReceived, StreamReset
from h2.exceptions import DenialOfServiceError, ProtocolError, TooManyStreamsError
from mitmproxy.connection import Connection
from mitmproxy.proxy import commands, events, layer
from mitmproxy.proxy.layers.http import HttpLayer
from mitmproxy.proxy.layers.http._events import RequestData, ResponseData, ResponseProtocolError
from mitmproxy.proxy.layers.http._http2 import Http2Client, Http2Connection, Http2Server
from mitmproxy.proxy.layers.http._http_h2 import BufferedH2Connection
from mitmproxy.proxy.server import ConnectionHandler

from addons import bounds, http2_places, waiting
from addons.http1 import plain, reason_of
from addons.http2_frames import Frames, TooMuch
from sidecar.problem import MEDIA_TYPE, Problem

_LOOK_AGAIN_SECONDS = 0.01
_SWEEP_AT = 256  # streams of a connection; then those that have ended are forgotten
_CLOSED_STREAMS = 1024  # of which h2 remembers how they ended

_stock_handle_event: Any = Http2Connection._handle_event
_stock_protocol_error: Any = Http2Connection.protocol_error
_stock_init: Any = BufferedH2Connection.__init__
_stock_receive_data: Any = BufferedH2Connection.receive_data
_stock_handle_h2_event: Any = Http2Server.handle_h2_event
_stock_drain_writers: Any = ConnectionHandler.drain_writers
_stock_check_host: Any = h2.utilities._check_host_authority_header
_held: WeakKeyDictionary[Connection, int] = WeakKeyDictionary()  # bytes, by the connection that they are to be sent on


def install() -> None:
    """Replace the methods and the one check; a second call changes nothing."""
    Http2Server.handle_h2_event = _handle_h2_event  # type: ignore[method-assign]
    h2.utilities._check_host_authority_header = _check_host  # type: ignore[assignment]
    BufferedH2Connection.MAX_CLOSED_STREAMS = _CLOSED_STREAMS
    BufferedH2Connection.__init__ = _init  # type: ignore[method-assign]
    BufferedH2Connection.receive_data = _receive_data  # type: ignore[method-assign]
    Http2Connection._handle_event = _handle_event  # type: ignore[method-assign]
    http2_places.install()
    Http2Connection.protocol_error = _protocol_error  # type: ignore[method-assign]
    Http2Connection.head = None  # type: ignore[attr-defined]  # how many came before the one that has begun, and when
    Http2Connection.sweep_at = _SWEEP_AT  # type: ignore[attr-defined]
    ConnectionHandler.drain_writers = _drain_writers  # type: ignore[method-assign]


def _init(self: BufferedH2Connection, config: Any) -> None:
    """As stock, within our limits."""
    _stock_init(self, config)
    self.local_settings.max_concurrent_streams = bounds.limits.http2_streams
    self.local_settings.max_header_list_size = self.decoder.max_header_list_size = bounds.limits.http2_head_bytes
    self.local_settings.acknowledge()  # in force at once
    self.incoming_buffer = Frames(server=not config.client_side)
    self.reached = None  # type: ignore[attr-defined]


def _receive_data(self: Any, data: bytes) -> list[Any]:
    """As stock, and notes a limit that was reached."""
    try:
        received: list[Any] = _stock_receive_data(self, data)
        for event in received:
            if isinstance(event, StreamReset) and not event.remote_reset:
                self.incoming_buffer.reset()  # by h2, for what the peer has sent
    except TooMuch as e:
        self.reached = (e.limit, str(e))
        raise
    except TooManyStreamsError:
        self.reached = ("http2_streams", f"more than {bounds.limits.http2_streams} streams at once")
        raise
    except DenialOfServiceError:
        self.reached = (
            "http2_head_bytes",
            f"a head is larger than {bounds.limits.http2_head_bytes} bytes when it is unpacked",
        )
        raise
    return received


def _protocol_error(
    self: Any, message: str, error_code: int = ErrorCodes.PROTOCOL_ERROR
) -> layer.CommandGenerator[None]:
    """As stock, but a limit that was reached is told of."""
    if self.h2_conn.reached is not None:
        limit, detail = self.h2_conn.reached
        self.h2_conn.reached, error_code = None, ErrorCodes.ENHANCE_YOUR_CALM
        bounds.reached(self.context.client.id, limit, detail, ends=self.conn is self.context.client)
    yield from _stock_protocol_error(self, message, error_code)


def _handle_event(self: Any, event: events.Event) -> layer.CommandGenerator[None]:
    """As stock, but answers of our own kind; notes how much waits for the peer's window."""
    if isinstance(event, RequestData | ResponseData):
        self.h2_conn.incoming_buffer.carried(len(event.data))
    elif isinstance(event, events.Wakeup) and isinstance(self, Http2Server):
        yield from _look_at_head(self)
        return
    elif isinstance(event, ResponseProtocolError) and (status := _status(self, event)) is not None:
        body = Problem(status, reason_of(status), plain(event.message)).body()
        head = [(b":status", b"%d" % status), (b"content-type", MEDIA_TYPE.encode()), (b"cache-control", b"no-store")]
        self.h2_conn.send_headers(event.stream_id, [*head, (b"content-length", b"%d" % len(body))])
        self.h2_conn.send_data(event.stream_id, body, end_stream=True)
        yield commands.SendData(self.conn, self.h2_conn.data_to_send())
        return
    yield from _stock_handle_event(self, event)
    if self.h2_conn.incoming_buffer.begun and isinstance(self, Http2Server):
        yield from _expect_head(self)
    if len(self.streams) > self.sweep_at:
        _sweep(self)
    buffers = self.h2_conn.stream_buffers
    if not buffers:
        _held.pop(self.conn, None)
        return
    held = sum(len(chunk.data) + http2_places.PIECE_BYTES for buffer in buffers.values() for chunk in buffer)
    _held[self.conn] = held
    if held > bounds.limits.most_held_bytes:
        buffers.clear()
        bounds.reached(self.context.client.id, "most_held_bytes", http2_places.DEADLOCK)
        yield commands.CloseConnection(self.context.client)


def _status(self: Any, event: ResponseProtocolError) -> int | None:
    """What a failure is answered with, where nothing of an answer has been sent."""
    if self.is_closed(event.stream_id) or not self.is_open_for_us(event.stream_id):
        return None
    sent = self.h2_conn.streams[event.stream_id].state_machine.headers_sent
    return None if sent else event.code.http_status_code()


def _sweep(self: Any) -> None:
    """Forget streams that have ended: stock keeps a note of each until the connection ends."""
    for stream in [stream for stream in self.streams if self.is_closed(stream)]:
        del self.streams[stream]
    self.sweep_at = max(_SWEEP_AT, 2 * len(self.streams))
    if isinstance(self, Http2Client):
        # A stream that isn't known is given a new number: what a request still says must not come to be another's.
        alive = next(of.streams for of in reversed(self.context.layers) if isinstance(of, HttpLayer))
        for theirs, ours in list(self.our_stream_id.items()):
            if theirs not in alive and self.is_closed(ours):
                del self.our_stream_id[theirs]
                self.their_stream_id.pop(ours, None)


def _expect_head(self: Any) -> layer.CommandGenerator[None]:
    """Part of a head is there: the rest has to come in time. At most one wake-up is on its way."""
    watched, heads = self.head is not None, self.h2_conn.incoming_buffer.heads
    if not watched or self.head[0] != heads:
        self.head = (heads, time.monotonic())
    if not watched:
        yield commands.RequestWakeup(bounds.limits.head_seconds)


def _look_at_head(self: Any) -> layer.CommandGenerator[None]:
    (heads, began), self.head = self.head, None
    frames = self.h2_conn.incoming_buffer
    if not frames.begun or heads != frames.heads:
        return
    left = began + bounds.limits.head_seconds - time.monotonic()
    if left > 0.001:
        self.head = (heads, began)
        yield commands.RequestWakeup(left)
        return
    text = f"the head of a request was not whole within {bounds.limits.head_seconds:g} s"
    self.h2_conn.reached = ("head_seconds", text)
    yield from self.protocol_error(text)


def _handle_h2_event(self: Http2Server, event: Any) -> layer.CommandGenerator[bool]:
    """As stock, but a request whose length says that there is more than its head is none (RFC 9113, section 8.1.1)."""
    if isinstance(event, RequestReceived) and event.stream_ended:
        length = next((value for name, value in event.headers if name == b"content-length"), b"0")
        if length.strip(b"0"):
            self.h2_conn.reset_stream(event.stream_id, ErrorCodes.PROTOCOL_ERROR)
            return False
    ended: bool = yield from _stock_handle_h2_event(self, event)
    return ended


def _check_host(headers: Any, flags: Any) -> Any:
    """As stock, but for one thing: Host may differ from ``:authority``, which `addons.gate` answers with 421."""
    if flags.is_response_header or flags.is_trailer or flags.is_push_promise:
        return _stock_check_host(headers, flags)
    return _named(headers)


def _named(headers: Any) -> Any:
    named = False
    for header in headers:
        named = named or header[0] in (b":authority", b"host")
        yield header
    if not named:
        raise ProtocolError("Request header block does not have an :authority or Host header.")


async def _drain_writers(self: ConnectionHandler) -> None:
    """As stock: awaited between two reads, so that a slow peer slows the other one. HTTP/2's windows count, too."""
    await _stock_drain_writers(self)
    while holding() and _must_wait(self):  # noqa: ASYNC110 - what is waited for is counted by code without an event
        await asyncio.sleep(_LOOK_AGAIN_SECONDS)


def holding() -> bool:
    """Whether anything waits for a peer's window, or for an upstream that is being dialled, anywhere."""
    return bool(_held or http2_places.queued) or waiting.any_waits()


def is_full(connection: Connection) -> bool:
    """Whether so much waits for this peer's window that what it comes from shouldn't be read."""
    if not _held and not http2_places.queued:
        return False
    return _held.get(connection, 0) + http2_places.queued.get(connection, 0) > bounds.limits.held_bytes


def _must_wait(handler: ConnectionHandler) -> bool:
    client_is_full = is_full(handler.client)
    if _reads_client(handler):
        # Its window updates come by the same way: where it holds up its own downloads, it is read all the same.
        upstream_is_full = any(is_full(connection) for connection in handler.transports)
        return waiting.is_full(handler.client) or (upstream_is_full and not client_is_full)
    return client_is_full and handler.client in handler.transports


def _reads_client(handler: ConnectionHandler) -> bool:
    transport = handler.transports.get(handler.client)
    return transport is None or transport.handler in (None, asyncio.current_task())
