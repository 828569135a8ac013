"""
mitmproxy's connections, which are leaked when they are closed at the wrong moment: taught better.

`addons.internals` puts it in place.
"""

from typing import Any

from mitmproxy.connection import Connection, ConnectionState
from mitmproxy.proxy import events
from mitmproxy.proxy.server import ConnectionHandler

_stock_handle_connection: Any = ConnectionHandler.handle_connection


def install() -> None:
    """Replace the one method; a second call changes nothing."""
    ConnectionHandler.handle_connection = _handle_connection  # type: ignore[method-assign]


async def _handle_connection(self: ConnectionHandler, connection: Connection) -> None:
    """
    As stock, but the socket is always closed, and its end is told.

    A layer that closes a connection cancels this very task. While the peer goes on sending, nothing here has to wait,
    and the cancellation comes up where stock doesn't expect it: its clean-up is skipped, and the peer is never told.
    """
    transport = self.transports[connection]
    try:
        await _stock_handle_connection(self, connection)
    finally:
        if self.transports.get(connection) is transport:
            connection.state = ConnectionState.CLOSED
            del self.transports[connection]
            await self.server_event(events.ConnectionClosed(connection))
        if transport.writer is not None:
            transport.writer.close()
