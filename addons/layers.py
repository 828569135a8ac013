"""Layers of our own: one that refuses, one that splices and counts, one that hears late TLS alerts."""

from collections.abc import Callable

from mitmproxy.proxy import commands, context, events, layer, layers
from mitmproxy.proxy.layers.tls import ClientTLSLayer


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
        ended: Called once, when either side has closed or the upstream couldn't be reached.
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
        elif isinstance(event, events.ConnectionClosed):
            self._ended()
        yield from super().relay_messages(event)


class InterceptTls(ClientTLSLayer):
    """Stock, but an alert that comes after the handshake (as NSS and others send it) is told, not only logged."""

    def __init__(self, context: context.Context, alert: Callable[[str], None]) -> None:
        super().__init__(context)
        self._alert = alert

    def receive_data(self, data: bytes) -> layer.CommandGenerator[None]:
        # None of these commands blocks this layer, so a plain loop loses no reply.
        for command in super().receive_data(data):
            if isinstance(command, commands.Log) and command.message.startswith("TLS Error: "):
                self._alert(command.message.removeprefix("TLS Error: "))
            yield command
