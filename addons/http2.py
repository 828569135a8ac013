"""
mitmproxy's HTTP/2, which takes whatever one side sends and keeps what the other side's window has no room for: taught
to stop reading. And the h2 library, which ends a connection for a Host that isn't `:authority`, before anybody has seen
the request: that is left to the gate. `addons.internals` puts it in place.
"""

import asyncio
from typing import Any
from weakref import WeakKeyDictionary

import h2.exceptions
import h2.utilities
from mitmproxy.connection import Connection
from mitmproxy.proxy import commands, events, layer
from mitmproxy.proxy.layers.http._http2 import Http2Connection
from mitmproxy.proxy.server import ConnectionHandler

HELD_BYTES = 4 << 20  # that wait for a peer's window; above it, what they come from isn't read
MOST_BYTES = 64 << 20  # that may wait where reading can't stop: in both directions at once
_LOOK_AGAIN_SECONDS = 0.01

_stock_handle_event: Any = Http2Connection._handle_event
_stock_drain_writers: Any = ConnectionHandler.drain_writers
_stock_check_host: Any = h2.utilities._check_host_authority_header
_held: WeakKeyDictionary[Connection, int] = WeakKeyDictionary()  # bytes, by the connection that they are to be sent on


def install() -> None:
    """Replace two methods and the one check; a second call changes nothing."""
    h2.utilities._check_host_authority_header = _check_host  # type: ignore[assignment]
    Http2Connection._handle_event = _handle_event  # type: ignore[method-assign]
    ConnectionHandler.drain_writers = _drain_writers  # type: ignore[method-assign]


def _handle_event(self: Http2Connection, event: events.Event) -> layer.CommandGenerator[None]:
    """As stock, and notes how much waits for the peer's window."""
    yield from _stock_handle_event(self, event)
    buffers = self.h2_conn.stream_buffers
    if not buffers:
        _held.pop(self.conn, None)
        return
    held = sum(len(chunk.data) for buffer in buffers.values() for chunk in buffer)
    _held[self.conn] = held
    if held > MOST_BYTES:
        buffers.clear()
        yield commands.CloseConnection(self.context.client)


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
        raise h2.exceptions.ProtocolError("Request header block does not have an :authority or Host header.")


async def _drain_writers(self: ConnectionHandler) -> None:
    """As stock: awaited between two reads, so that a slow peer slows the other one. HTTP/2's windows count, too."""
    await _stock_drain_writers(self)
    while _held and _must_wait(self):  # noqa: ASYNC110 - what is waited for is counted by code without an event
        await asyncio.sleep(_LOOK_AGAIN_SECONDS)


def holding() -> bool:
    """Whether anything waits for a peer's window, anywhere."""
    return bool(_held)


def is_full(connection: Connection) -> bool:
    """Whether so much waits for this peer's window that what it comes from shouldn't be read."""
    return bool(_held) and _held.get(connection, 0) > HELD_BYTES


def _must_wait(handler: ConnectionHandler) -> bool:
    client_is_full = is_full(handler.client)
    if _reads_client(handler):
        # Its window updates come by the same way: where it holds up its own downloads, it is read all the same.
        upstream_is_full = any(is_full(connection) for connection in handler.transports)
        return upstream_is_full and not client_is_full
    return client_is_full and handler.client in handler.transports


def _reads_client(handler: ConnectionHandler) -> bool:
    transport = handler.transports.get(handler.client)
    return transport is None or transport.handler in (None, asyncio.current_task())
