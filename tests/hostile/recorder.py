"""An upstream that keeps exactly the bytes that it gets, by connection, and answers each request that is whole."""

import asyncio
import re
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import h11

from tests.live.sidecars import until
from tests.live.threads import serving_protocol

MARK: Final = re.compile(rb"m[0-9]+z")


@dataclass(frozen=True, slots=True)
class Reply:
    """What an upstream sends, and whether it closes then."""

    data: bytes
    closes: bool = False


type Answer = Callable[[bytes, bytes], Reply]  # of method and target


def ok(method: bytes, target: bytes) -> Reply:
    return Reply(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n" + (b"" if method == b"HEAD" else b"ok"))


class Recorded:
    """What has come, in the order of the connections; each request carries its test's mark in its target."""

    def __init__(self) -> None:
        self._connections: list[bytearray] = []
        self.open = 0

    def begin(self) -> bytearray:
        self._connections.append(data := bytearray())
        return data

    def by_mark(self) -> dict[str, list[bytes]]:
        """The bytes of each connection, by the mark in it; no connection has two."""
        until(lambda: self.open == 0 or None, "end of all upstream connections")
        found: dict[str, list[bytes]] = {}
        for data in self._connections:
            marks = {mark.decode() for mark in MARK.findall(data)}
            assert len(marks) == 1 or not data, f"{marks} on one connection: {bytes(data)!r}"
            for mark in marks:
                found.setdefault(mark, []).append(bytes(data))
        return found

    def has(self, mark: str) -> bool:
        return any(mark.encode() in data for data in list(self._connections))


class _Upstream(asyncio.Protocol):
    def __init__(self, recorded: Recorded, answer: Answer) -> None:
        self._recorded, self._answer = recorded, answer
        self._reader = h11.Connection(h11.SERVER)
        self._head: Any = None

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._recorded.open += 1
        tls = transport.get_extra_info("ssl_object")
        if tls is not None and tls.selected_alpn_protocol() == "h2":
            transport.close()
        self._data = self._recorded.begin()

    def connection_lost(self, exc: Exception | None) -> None:
        self._recorded.open -= 1

    def data_received(self, data: bytes) -> None:
        self._data += data
        try:
            self._reader.receive_data(data)
            self._read()
        except h11.RemoteProtocolError:
            self._transport.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            self._transport.close()

    def _read(self) -> None:
        while (event := self._reader.next_event()) is not h11.NEED_DATA:
            match event:
                case h11.Request():
                    self._head = event
                case h11.EndOfMessage():
                    reply = self._answer(self._head.method, self._head.target)
                    self._transport.write(reply.data)
                    self._reader.send(h11.Response(status_code=200, headers=[("content-length", "0")]))
                    self._reader.send(h11.EndOfMessage())
                    if reply.closes or self._reader.our_state is h11.MUST_CLOSE:
                        self._transport.close()
                        return
                    self._reader.start_next_cycle()
                case h11.PAUSED:
                    return


class Downgrade:
    """TLS that chooses HTTP/2 for one connection, the next one after `begin`, and HTTP/1 for all others."""

    def __init__(self, h2: ssl.SSLContext, http1: ssl.SSLContext) -> None:
        h2.set_alpn_protocols(["h2"])
        http1.set_alpn_protocols(["http/1.1"])
        self.context, self._http1, self._first = h2, http1, False
        h2.sni_callback = self._choose

    def begin(self) -> None:
        self._first = True

    def _choose(self, connection: ssl.SSLObject | ssl.SSLSocket, name: str | None, context: ssl.SSLContext) -> None:
        if not self._first:
            connection.context = self._http1
        self._first = False


@contextmanager
def recording(context: ssl.SSLContext | None, answer: Answer = ok) -> Iterator[tuple[int, Recorded]]:
    """
    Serve HTTP/1 on a free port from a thread; gives the port and what comes.

    Args:
        context: For TLS. Connections that have chosen HTTP/2 are closed at once, and not counted.
    """
    recorded = Recorded()
    with serving_protocol(lambda: _Upstream(recorded, answer), context) as port:
        yield port, recorded
