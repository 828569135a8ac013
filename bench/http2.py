"""
An HTTP/2 client that costs next to nothing: prebuilt header blocks, and of the answers what has to be checked.

Frames as in RFC 9113, section 4.1; header fields as in RFC 7541, appendix A and section 6.
"""

import struct
import time
from collections.abc import Callable, Iterator

from bench.names import BODY_BYTES, SMALL
from bench.wire import PIECE_BYTES, Tunnel, WrongAnswer

STREAMS = 100
_DATA, _HEADERS, _RST_STREAM, _SETTINGS, _PING, _GOAWAY = 0, 1, 3, 4, 6, 7
_END_STREAM, _ACK, _END_HEADERS = 1, 1, 4
_STATUS_200 = 0x88  # indexed field 8, ":status: 200"


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return struct.pack("!IBBI", len(payload), kind, flags, stream)[1:] + payload


def _literal(prefix: bytes, value: str) -> bytes:
    return prefix + bytes([len(value)]) + value.encode()


def request_block(authority: str, path: str) -> bytes:
    """GET over https, without the dynamic table: the same bytes for every request."""
    fields = [b"\x82\x87", _literal(b"\x04", path), _literal(b"\x01", authority), _literal(b"\x0f\x2b", "bench")]
    return b"".join(fields)


PREFACE = (
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
    + frame(_SETTINGS, 0, 0, struct.pack("!HIHI", 2, 0, 4, 1 << 20))  # no push; windows that never fill
    + frame(8, 0, 0, struct.pack("!I", (1 << 31) - 1 - 65535))
)


class Http2:
    """One connection; *streams* requests are always on their way."""

    def __init__(self, tunnel: Tunnel, streams: int = STREAMS) -> None:
        self._socket, self._streams = tunnel.socket, streams
        if self._socket.selected_alpn_protocol() != "h2":
            raise WrongAnswer("HTTP/2 wasn't negotiated")
        self._block = request_block(tunnel.authority, SMALL)
        self._next = 1
        self._sent: dict[int, float] = {}
        self._got: dict[int, int] = {}
        self._buffer = b""
        self._socket.sendall(PREFACE)

    def run(self, over: Callable[[], bool]) -> Iterator[float]:
        """Requests until *over*, then what is still to come of their answers. Gives how long each took, s."""
        self._send(sum(not over() for _ in range(self._streams)))
        while self._sent:
            done = list(self._receive())
            self._send(sum(not over() for _ in done))
            yield from done

    def _send(self, count: int) -> None:
        out, now = bytearray(), time.perf_counter()
        for _ in range(count):
            out += frame(_HEADERS, _END_STREAM | _END_HEADERS, self._next, self._block)
            self._sent[self._next] = now
            self._next += 2
        if out:
            self._socket.sendall(out)

    def _receive(self) -> Iterator[float]:
        if not (piece := self._socket.recv(PIECE_BYTES)):
            raise WrongAnswer(f"closed with {len(self._sent)} requests on their way")
        buffer, at = self._buffer + piece, 0
        while len(buffer) - at >= 9:
            length, kind, flags = int.from_bytes(buffer[at : at + 3]), buffer[at + 3], buffer[at + 4]
            stream = int.from_bytes(buffer[at + 5 : at + 9])
            if len(buffer) - at - 9 < length:
                break
            payload = buffer[at + 9 : at + 9 + length]
            at += 9 + length
            self._take(kind, flags, stream, payload)
            if kind in {_DATA, _HEADERS} and flags & _END_STREAM:
                if (got := self._got.pop(stream, 0)) != BODY_BYTES:
                    raise WrongAnswer(f"stream {stream} had a body of {got} bytes")
                yield time.perf_counter() - self._sent.pop(stream)
        self._buffer = buffer[at:]

    def _take(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind == _DATA:
            if payload.count(b"x") != len(payload):
                raise WrongAnswer(f"another body: {payload[:200]!r}")
            self._got[stream] = self._got.get(stream, 0) + len(payload)
        elif kind == _HEADERS:
            if payload.lstrip(bytes(range(0x20, 0x40)))[0] != _STATUS_200:  # behind updates of the table's size
                raise WrongAnswer(f"another status: {payload[:200]!r}")
        elif kind in {_RST_STREAM, _GOAWAY}:
            raise WrongAnswer(f"frame {kind}: {payload!r}")
        elif kind in {_SETTINGS, _PING} and not flags & _ACK:
            self._socket.sendall(frame(kind, _ACK, 0, payload if kind == _PING else b""))
