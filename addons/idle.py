"""
Silence on a connection: borne until the idle time is over, and kept from being cut by networks in between.

mitmproxy's HTTP/2 PINGs are off: every minute is too often for gRPC's servers, which close a connection for more than
two in five minutes, and each would count as activity. TCP's own keep-alive does it for every protocol, unseen.
`addons.internals` puts this in place.
"""

import socket
from collections.abc import Awaitable, Callable
from typing import Any, Final

from mitmproxy.proxy.server import ConnectionHandler

from addons.bounds import record_of
from sidecar.problem import Failure
from sidecar.reasons import Reason

# Seconds; networks forget a silent connection after some minutes, 350 s being the shortest of the large clouds'.
KEEPALIVE_AFTER: Final = 60
KEEPALIVE_EVERY: Final = 15
KEEPALIVE_TRIES: Final = 4

_stock_on_timeout: Callable[[ConnectionHandler], Awaitable[None]] = ConnectionHandler.on_timeout


def install() -> None:
    """Replace the one method; a second call changes nothing."""
    ConnectionHandler.on_timeout = _on_timeout  # type: ignore[method-assign]


def keep_alive(sock: Any) -> None:
    """Have the kernel ask a silent peer whether it's still there. Lost peers are noticed after two minutes."""
    if sock is None or sock.family not in (socket.AF_INET, socket.AF_INET6):
        return
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (
        (socket.TCP_KEEPIDLE, KEEPALIVE_AFTER),
        (socket.TCP_KEEPINTVL, KEEPALIVE_EVERY),
        (socket.TCP_KEEPCNT, KEEPALIVE_TRIES),
    ):
        sock.setsockopt(socket.IPPROTO_TCP, option, value)


def timed_out(connection_id: str, seconds: float) -> None:
    """Note why a connection ends: to the hooks it looks as if the client had hung up."""
    record = record_of(connection_id)
    if record is not None:
        failure = Failure(Reason.TIMEOUT, f"nothing was sent or received for {seconds:g} s")
        record.revoked = record.revoked or failure
        for request in record.requests.values():
            request.revoked = request.revoked or record.revoked


async def _on_timeout(self: ConnectionHandler) -> None:
    """As stock, but what ends by it says so."""
    timed_out(self.client.id, self.timeout_watchdog.timeout)
    await _stock_on_timeout(self)
