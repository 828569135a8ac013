"""
Everything private of mitmproxy that we change, in one place: `tests/test_internals.py` fails when a new one differs.

Stock `HttpStream` can't answer a request while its body is still arriving: it buffers a refused upload whole, and ends
an upstream's early answer only with the upload. It answers for an unreachable upstream with a page of its own, and
keeps what it has refused in memory. `ServerTLSLayer` leaves a request waiting where an alert ends the connection.
All of this is taught here.
"""

from collections.abc import Callable
from typing import Any

from mitmproxy import connection, ctx, flow
from mitmproxy.http import MessageData
from mitmproxy.proxy import commands, events, layer
from mitmproxy.proxy.layers.http import DropStream, GetHttpConnection, HttpLayer, HttpStream, SendHttp
from mitmproxy.proxy.layers.http._events import (
    ErrorCode,
    RequestData,
    RequestEndOfMessage,
    RequestProtocolError,
    ResponseData,
    ResponseEndOfMessage,
    ResponseHeaders,
    ResponseProtocolError,
)
from mitmproxy.proxy.layers.http._hooks import HttpErrorHook, HttpResponseHeadersHook
from mitmproxy.proxy.layers.tls import ServerTLSLayer, TLSLayer
from mitmproxy.proxy.tunnel import TunnelState
from OpenSSL import SSL

from addons import bounds, connections, framing, http1, http2, idle, redial, waiting, websocket
from sidecar.upstreams.handshake import ended_by_alert

_stock_start_request_stream: Callable[[HttpStream], layer.CommandGenerator[None]] = HttpStream.start_request_stream
_stock_send_response: Callable[[HttpStream, bool], layer.CommandGenerator[None]] = HttpStream.send_response
_CONNECTIONS = 16  # of a client's, known to its HTTP layer; then those that have ended are forgotten

_stock_get_connection: Any = HttpLayer.get_connection
_stock_check_invalid: Callable[[HttpStream, bool], layer.CommandGenerator[bool]] = HttpStream.check_invalid
_stock_handle_protocol_error: Callable[[HttpStream, Any], layer.CommandGenerator[None]] = (
    HttpStream.handle_protocol_error
)
_stock_start_handshake: Callable[[ServerTLSLayer], layer.CommandGenerator[None]] = ServerTLSLayer.start_handshake
_stock_receive_close: Callable[[TLSLayer], layer.CommandGenerator[None]] = TLSLayer.receive_close
_stock_send_data: Callable[[TLSLayer, bytes], layer.CommandGenerator[None]] = TLSLayer.send_data


def install() -> None:
    """Teach mitmproxy's HTTP layer; a second call changes nothing."""
    HttpStream.start_request_stream = _start_request_stream  # type: ignore[method-assign]
    HttpStream.send_response = _send_response  # type: ignore[method-assign]
    HttpStream.handle_protocol_error = _handle_protocol_error  # type: ignore[method-assign]
    HttpStream.make_server_connection = _make_server_connection  # type: ignore[method-assign]
    HttpStream.check_invalid = _check_invalid  # type: ignore[method-assign]
    HttpLayer.get_connection = _get_connection  # type: ignore[method-assign]
    ServerTLSLayer.start_handshake = _start_handshake  # type: ignore[method-assign]
    ServerTLSLayer.receive_close = _receive_close  # type: ignore[assignment,method-assign]
    ServerTLSLayer.send_data = _send_data  # type: ignore[assignment,method-assign]
    # Checks the type of each of a message's 15 fields, for mistakes of addon authors: 7 % of a request's cost.
    MessageData.__post_init__ = _no_check  # type: ignore[method-assign]
    framing.install()
    http1.install()
    http2.install()
    connections.install()
    idle.install()
    waiting.install()
    websocket.install()


def end_connection(connection_id: str, why: str) -> None:
    """Close a client connection and everything that hangs on it, at once; its hooks fire as for any end."""
    handler = _handler(connection_id)
    if handler is not None and (transport := handler.transports.get(handler.client)) is not None and transport.handler:
        transport.handler.cancel(why)


def end_upstream(connection_id: str, server: connection.Server, why: str) -> None:
    """Close one of a client's upstream connections; what was under way on it fails."""
    if (handler := _handler(connection_id)) is not None and (io := handler.transports.get(server)) is not None:
        io.handler.cancel(why)


def close_oldest_upstreams(connection_id: str, newest: connection.Server, most: int) -> list[Any]:
    """Leave a client no more than *most* upstream connections, *newest* among them; gives those that are closed."""
    handler = _handler(connection_id)
    if handler is None or len(handler.transports) <= most + 1:
        return []
    others = [server for server in handler.transports if server not in (handler.client, newest)]
    oldest = others[: len(others) + 1 - most]
    for server in oldest:
        end_upstream(connection_id, server, "the oldest of too many")
    return oldest


async def wake(connection_id: str) -> None:
    """Have ``next_layer`` asked for a client that is silent: until it speaks, mitmproxy asks nobody."""
    if (handler := _handler(connection_id)) is not None:
        await handler.server_event(events.DataReceived(handler.client, b""))


def socket_of(connection_id: str, of: connection.Connection) -> Any:
    """The socket of one of a client's connections; None if it is gone."""
    handler = _handler(connection_id)
    io = handler.transports.get(of) if handler is not None else None
    return io.writer.get_extra_info("socket") if io is not None and io.writer is not None else None


def _handler(connection_id: str) -> Any:
    proxyserver: Any = ctx.master.addons.get("proxyserver")
    return proxyserver.connections.get(connection_id)


def _no_check(self: MessageData) -> None:
    pass


def _start_handshake(self: ServerTLSLayer) -> layer.CommandGenerator[None]:
    """As stock, but TLS that another client has left established is open at once: nothing more comes to make it so."""
    yield from _stock_start_handshake(self)
    if self.tunnel_state is TunnelState.ESTABLISHING and self.tls is not None and self.conn.tls_established:
        yield from self._handshake_finished(None)


def _receive_close(self: ServerTLSLayer) -> layer.CommandGenerator[None]:
    """As stock, but an alert that ended the connection isn't taken for a close_notify, which the child was told of."""
    if self.tls is not None and ended_by_alert(self.tls):
        self.tls.set_shutdown(0)
    yield from _stock_receive_close(self)


def _send_data(self: ServerTLSLayer, data: bytes) -> layer.CommandGenerator[None]:
    """As stock, but where an alert has come and the end hasn't yet, nothing can be sent: the end is made."""
    try:
        yield from _stock_send_data(self, data)
    except SSL.Error:
        yield commands.CloseConnection(self.conn)


def _start_request_stream(self: HttpStream) -> layer.CommandGenerator[None]:
    """With a response already set: answer at once, and discard what still comes."""
    if self.flow.response is None:
        yield from _stock_start_request_stream(self)
        return
    self.client_state = _discard(self)
    # The caller sets server_state to this after we return; nothing will come from a server.
    self.state_wait_for_response_headers = self.state_done
    yield HttpResponseHeadersHook(self.flow)
    yield from self.send_response()


def _discard(self: HttpStream) -> Callable[[Any], layer.CommandGenerator[None]]:
    """A state for what still comes of an upload that nobody reads."""
    discarded = 0

    def discard(event: Any) -> layer.CommandGenerator[None]:
        nonlocal discarded
        if isinstance(event, RequestData):
            discarded += len(event.data)
            if discarded > bounds.limits.discard_bytes:
                self.client_state = self.state_errored
                if self.flow.request.is_http2:
                    too_much = ResponseProtocolError(self.stream_id, "refused", ErrorCode.CANCEL)
                    yield SendHttp(too_much, self.context.client)
                    yield DropStream(self.stream_id)
                else:
                    self.context.client.sends_on = True  # type: ignore[attr-defined]
                    yield commands.CloseConnection(self.context.client)
        elif isinstance(event, RequestEndOfMessage):
            self.client_state = self.state_done
            yield from self.flow_done()

    return discard


def _send_response(self: HttpStream, already_streamed: bool = False) -> layer.CommandGenerator[None]:
    """As stock, but an answer that comes before the upload's end is ended when it is whole, not when that is."""
    yield from _stock_send_response(self, already_streamed)
    if self.client_state != self.state_stream_request_body or self.server_state != self.state_done:
        return

    def flow_done() -> layer.CommandGenerator[None]:
        self.flow.live = False
        yield DropStream(self.stream_id)

    self.flow_done = flow_done  # type: ignore[method-assign]
    yield SendHttp(ResponseEndOfMessage(self.stream_id), self.context.client)


def _handle_protocol_error(
    self: HttpStream, event: RequestProtocolError | ResponseProtocolError
) -> layer.CommandGenerator[None]:
    """As stock, but where the answer is whole, an upload's end is no failure: each side is told what it has to know."""
    if redial.may_redial(self, event):
        yield from redial.redial(self)
        return
    if self.client_state != self.state_stream_request_body or self.server_state != self.state_done:
        yield from _stock_handle_protocol_error(self, event)
    elif isinstance(event, ResponseProtocolError):
        self.client_state = _discard(self)
    else:
        self.client_state = self.state_errored
        yield SendHttp(event, self.context.server)
        yield from self.flow_done()


def _make_server_connection(self: HttpStream) -> layer.CommandGenerator[bool]:
    """As stock, but if it fails, the response that an ``error`` hook has set is what the client gets."""
    connection, err = yield GetHttpConnection(
        (self.flow.request.host, self.flow.request.port),
        self.flow.request.scheme == "https",
        self.flow.server_conn.via,
        self.flow.server_conn.transport_protocol,
    )
    if not err:
        self.context.server = self.flow.server_conn = connection
        return True
    self.flow.error = flow.Error(err)
    yield HttpErrorHook(self.flow)
    if self.flow.response is None:
        yield SendHttp(ResponseProtocolError(self.stream_id, err, ErrorCode.CONNECT_FAILED), self.context.client)
    else:
        content = self.flow.response.raw_content or b""
        yield SendHttp(ResponseHeaders(self.stream_id, self.flow.response, not content), self.context.client)
        if content:
            yield SendHttp(ResponseData(self.stream_id, content), self.context.client)
        yield SendHttp(ResponseEndOfMessage(self.stream_id), self.context.client)
    self.flow.live = False
    # What still comes of an upload is consumed and forgotten.
    self.client_state = self.server_state = self.state_errored
    self.state_wait_for_response_headers = self.state_errored
    yield DropStream(self.stream_id)
    return False


def _get_connection(self: HttpLayer, event: Any, *, reuse: bool = True) -> layer.CommandGenerator[None]:
    """As stock, but upstream connections that have ended, and that no request is at, are forgotten."""
    if len(self.connections) > _CONNECTIONS:
        in_use = {id(stream.context.server) for stream in self.streams.values()}
        kept = in_use | {id(self.context.client), id(self.context.server)}
        for ended in [c for c in self.connections if not c.connected and id(c) not in kept]:
            told = ended.timestamp_end is not None or getattr(ended, "timestamp_tcp_setup", None) is None
            if told and ended not in self.waiting_for_establishment:
                del self.connections[ended]
    yield from _stock_get_connection(self, event, reuse=reuse)


def _check_invalid(self: HttpStream, request: bool) -> layer.CommandGenerator[bool]:
    """As stock, but an HTTP/2 stream that was refused isn't kept until its connection ends; answers are settled."""
    if not request:
        framing.settle_exchange(self.flow)
        redial.mark_used(self.flow.server_conn)
    invalid = yield from _stock_check_invalid(self, request)
    if invalid:
        yield DropStream(self.stream_id)
    return invalid
