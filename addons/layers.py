"""Layers of our own: one that refuses, one that splices and counts, one that hears late TLS alerts."""

from collections.abc import Callable
from contextlib import suppress

from mitmproxy.connection import ConnectionState
from mitmproxy.proxy import commands, context, events, layer, layers
from mitmproxy.proxy.layers.tls import ClientTLSLayer
from OpenSSL import SSL

MAX_CLIENT_HELLO = 64 * 1024  # bytes; post-quantum key shares make a ClientHello larger than a packet, not than this


class Refuse(layer.Layer):
    """Closes the client connection; nothing is dialled."""

    def _handle_event(self, event: events.Event) -> layer.CommandGenerator[None]:
        if isinstance(event, (events.Start, events.DataReceived)):
            yield commands.CloseConnection(self.context.client)


class Splice(layers.TCPLayer):
    """
    Forwards bytes untouched in both directions and counts them; keeps none.

    Args:
        count: Called with (bytes to the upstream, bytes to the client) of each piece.
        ended: Called when both directions have ended.
    """

    def __init__(self, context: context.Context, count: Callable[[int, int], None], ended: Callable[[], None]) -> None:
        super().__init__(context, ignore=True)
        self._count, self._ended = count, ended

    def _handle_event(self, event: events.Event) -> layer.CommandGenerator[None]:
        yield from self.start(event)  # which installs relay_messages, or done

    def relay_messages(self, event: events.Event) -> layer.CommandGenerator[None]:
        if isinstance(event, events.DataReceived):
            size = len(event.data)
            if event.connection is self.context.client:
                self._count(size, 0)
            else:
                self._count(0, size)
        elif isinstance(event, events.ConnectionClosed) and not (
            (self.context.client.state | self.context.server.state) & ConnectionState.CAN_READ
        ):  # one direction may end long before the other
            self._ended()
        yield from super().relay_messages(event)


class InterceptTls(ClientTLSLayer):
    """
    Stock, with four differences: an alert that comes after the handshake (as NSS and others send it) is told, not only
    logged; what can't become a ClientHello is refused at once, not collected; a handshake that we or OpenSSL break off
    ends with an alert; and the end is announced by close_notify (RFC 8446, section 6.1), without which clients take the
    response for truncated.

    Args:
        alert: Called with OpenSSL's words for an alert.
        used: Called when the client has sent something inside of TLS, whether or not it becomes a request.
        refusal: Gives the alert's number for a handshake that no addon wants to answer.
    """

    def __init__(
        self,
        context: context.Context,
        alert: Callable[[str], None],
        used: Callable[[], None],
        refusal: Callable[[], int],
    ) -> None:
        super().__init__(context)
        self._alert, self._used, self._refusal = alert, used, refusal

    def start_tls(self) -> layer.CommandGenerator[None]:
        for command in super().start_tls():  # a hook's reply, the only one, is nothing
            if isinstance(command, commands.CloseConnection) and self.conn.state & ConnectionState.CAN_WRITE:
                # Nothing is encrypted yet: a record of type alert, two bytes, fatal (RFC 8446, sections 5.1 and 6).
                yield commands.SendData(self.conn, bytes((21, 3, 3, 0, 2, 2, self._refusal())))
            if not isinstance(command, commands.Log):  # "no TLS context": who refused has said why
                yield command

    def note_use(self) -> None:
        """Something has come that is for the layer inside."""
        self._used()

    def event_to_child(self, event: events.Event) -> layer.CommandGenerator[None]:
        if isinstance(event, events.DataReceived) and event.connection is self.conn:
            self.note_use()
        return super().event_to_child(event)

    def receive_handshake_data(self, data: bytes) -> layer.CommandGenerator[tuple[bool, str | None]]:
        if not self.client_hello_parsed:
            start = bytes(self.recv_buffer[:6]) + data[:6]
            # The first byte after the record's header is the message's type: 1 is client_hello (RFC 8446, section 4).
            if start[5:6] not in (b"", b"\x01") or len(self.recv_buffer) + len(data) > MAX_CLIENT_HELLO:
                return False, "Cannot parse ClientHello: it is none, or too large a one"
        return (yield from super().receive_handshake_data(data))

    def on_handshake_error(self, err: str) -> layer.CommandGenerator[None]:
        if self.tls is not None and self.conn.state & ConnectionState.CAN_WRITE:
            yield from self.tls_interact()
        yield from super().on_handshake_error(err)

    def receive_data(self, data: bytes) -> layer.CommandGenerator[None]:
        if self.tls is None:
            return  # behind a ClientHello that was none, in a segment of its own
        failed = False
        # None of these commands blocks this layer, so a plain loop loses no reply.
        for command in super().receive_data(data):
            if isinstance(command, commands.Log) and command.message.startswith("TLS Error: "):
                failed = True
                self._alert(command.message.removeprefix("TLS Error: "))
            yield command
        if not failed and self.tls.get_shutdown() & SSL.RECEIVED_SHUTDOWN:
            self._alert("ssl/tls alert close notify")

    def send_close(self, command: commands.CloseConnection) -> layer.CommandGenerator[None]:
        with suppress(SSL.Error):
            self.tls.shutdown()
        yield from self.tls_interact()
        yield from super().send_close(command)
