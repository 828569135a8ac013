"""
Upstream connections that a client has left between two requests, for the next client of the same destination.

What is parked has proven a name to a context; it is given to nobody else. The name has a verdict and its address is
checked before each use, by the same hooks as for a dial.
"""

import asyncio
import select
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

from mitmproxy.connection import ConnectionState, Server
from OpenSSL import SSL

from sidecar.upstreams.handshake import ended_by_alert, session_of
from sidecar.upstreams.sessions import Destination, Sessions

_lib: Any = SSL._lib  # type: ignore[attr-defined]
_POINTER: Any = SSL._ffi.new("char **")  # type: ignore[attr-defined]


@dataclass(frozen=True, slots=True)
class Made:
    """The TLS of one upstream connection, and the pool's generation when it began."""

    destination: Destination
    tls: SSL.Connection
    generation: int
    direct: bool  # not through another proxy


class Parked(asyncio.Protocol):
    """One that waits. Whatever its upstream says meanwhile, nobody has asked for: it is closed."""

    def __init__(self, pool: "Pool", transport: Any, made: Made) -> None:
        self.transport, self.made, self._pool = transport, made, pool
        self.timer: asyncio.TimerHandle | None = None

    def data_received(self, data: bytes) -> None:  # noqa: ARG002 (asyncio's signature)
        self._pool.drop(self)

    def eof_received(self) -> None:
        self._pool.drop(self)

    def connection_lost(self, error: Exception | None) -> None:  # noqa: ARG002 (asyncio's signature)
        self._pool.drop(self)

    def is_silent(self) -> bool:
        """Whether the kernel knows of nothing from the upstream, no end either."""
        sock = self.transport.get_extra_info("socket")
        if self.transport.is_closing() or sock is None or sock.fileno() < 0:
            return False
        poll = select.poll()
        poll.register(sock.fileno(), select.POLLIN | select.POLLRDHUP)
        return not poll.poll(0)


class Pool:
    """
    Those that wait, of one session.

    Args:
        most: How many; 0: none. Then the one that has waited longest is closed.
        seconds: How long one waits.
        sessions: Keeps the TLS sessions of those that are closed.
    """

    def __init__(self, most: int, seconds: float, sessions: Sessions) -> None:
        self.most, self.seconds = most, seconds
        self.generation = 0
        self.made: WeakKeyDictionary[Server, Made] = WeakKeyDictionary()
        self._sessions = sessions
        self._waiting: dict[Destination, list[Parked]] = {}
        self._all: dict[Parked, None] = {}  # the longest first; those that are reserved as well
        self._reserved: WeakKeyDictionary[Server, Parked] = WeakKeyDictionary()
        self._adopted: WeakKeyDictionary[Server, Made] = WeakKeyDictionary()

    def __len__(self) -> int:
        return len(self._all)

    def began(self, server: Server, destination: Destination, tls: SSL.Connection, *, direct: bool) -> None:
        """*server*'s TLS is this."""
        self.made[server] = Made(destination, tls, self.generation, direct)

    def ended(self, server: Server) -> None:
        """*server* is closed; its session is kept, if it may be resumed."""
        made = self.made.pop(server, None)
        if made is not None and server.tls_established:
            self._keep(made)

    def park(self, server: Server, transport: Any) -> bool:
        """Take over a connection that no request is at; False if it isn't fit for another one."""
        made = self.made.get(server)
        if (
            self.most == 0
            or made is None
            or not made.direct
            or made.generation != self.generation
            or server.state is not ConnectionState.OPEN
            or not server.tls_established
            or server.alpn not in (None, b"", b"http/1.1")
            or not _between_requests(server)
            or transport.is_closing()
            or transport.get_write_buffer_size()
            or _unread(made.tls)
        ):
            return False
        del self.made[server]
        while len(self._all) >= self.most:
            self.drop(next(iter(self._all)))
        parked = Parked(self, transport, made)
        parked.timer = asyncio.get_running_loop().call_later(self.seconds, self.drop, parked)
        transport.set_protocol(parked)
        self._all[parked] = None
        self._waiting.setdefault(made.destination, []).append(parked)
        return True

    def reserve(self, server: Server, destination: Destination) -> bool:
        """Keep one for *server*, whose name and address are checked; unless it's claimed, its time goes on."""
        while waiting := self._waiting.get(destination):
            parked = waiting.pop()
            if not waiting:
                del self._waiting[destination]
            if parked.is_silent():
                self._reserved[server] = parked
                return True
            self.drop(parked)
        return False

    def claim(self, server: Server) -> Any:
        """The transport of what was reserved, to be read by another protocol from now on; None if there is none."""
        parked = self._reserved.pop(server, None)
        if parked is None or parked not in self._all:
            return None
        if not parked.is_silent():
            self.drop(parked)
            return None
        self._forget(parked)
        self._adopted[server] = parked.made
        return parked.transport

    def adopted(self, server: Server) -> Made | None:
        """The TLS of the connection that *server* has claimed; once."""
        return self._adopted.pop(server, None)

    def drop(self, parked: Parked) -> None:
        """Close one."""
        if parked not in self._all:
            return
        self._forget(parked)
        parked.transport.close()
        self._keep(parked.made)

    def clear(self) -> None:
        """Close all, and take none of those that are in use: policy, roots or lists have changed, or it's the end."""
        self.generation += 1
        for parked in list(self._all):
            self.drop(parked)
        self._sessions.clear()

    def _keep(self, made: Made) -> None:
        if made.generation == self.generation and (kept := session_of(made.tls)) is not None:
            self._sessions.keep(made.destination, kept)

    def _forget(self, parked: Parked) -> None:
        del self._all[parked]
        if parked.timer is not None:
            parked.timer.cancel()
        waiting = self._waiting.get(parked.made.destination, [])
        if parked in waiting:
            waiting.remove(parked)
            if not waiting:
                del self._waiting[parked.made.destination]


def _between_requests(server: Server) -> bool:
    """
    Whether the last answer is whole, and the connection is to go on.

    mitmproxy's layer has no request then, and waits for the head of an answer; after an answer that ends the connection
    (HTTP/1.0, ``Connection: close``, one without a length), or makes a tunnel of it, it's in another state.
    """
    layer: Any = getattr(server, "http1", None)
    return (
        layer is not None
        and layer.state == layer.read_headers
        and layer.request is None
        and layer.stream_id is None
        and not layer.buf
    )


def _unread(tls: SSL.Connection) -> bool:
    """Whether something has come that nobody has read, or the TLS has ended."""
    return bool(
        tls.get_shutdown()
        or ended_by_alert(tls)
        or _lib.SSL_pending(tls._ssl)
        or _lib.BIO_get_mem_data(tls._into_ssl, _POINTER) > 0
        or _lib.BIO_get_mem_data(tls._from_ssl, _POINTER) > 0
    )
