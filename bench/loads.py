"""The operations of each row. A load gives the seconds of each one, until it is told that it's over; then it ends."""

import re
import time
from collections import deque
from collections.abc import Callable, Iterator
from itertools import chain, repeat

from bench.http2 import Http2
from bench.names import BIG, DENIED, KNOWN, PASSED, SMALL, contacts
from bench.rows import Row
from bench.websocket import client_frame, handshake_key
from bench.wire import PIECE_BYTES, ZEROS, Load, Tunnel, WrongAnswer, client_context, content_length

type Over = Callable[[], bool]
type Run = Callable[[Over], Iterator[float]]

STEADY_SECONDS = 1 / 150
EVENTS_PER_SECOND = 100
WARM_UP = {Row.KEEP_ALIVE: 400, Row.STEADY: 50, Row.HTTP2: 300, Row.WEBSOCKET: 100, Row.DENIED: 100}  # operations
NO_WARM_UP = frozenset({Row.CONNECTIONS_RSS, Row.GROWTH, Row.START})
WARM_UP_CONNECTIONS = 20

clock = time.perf_counter


def prepare(load: Load) -> Run:
    """Connect where a row keeps its connection."""
    context = client_context(load.ca_file, "h2" if load.row is Row.HTTP2 else "http/1.1")
    match load.row:
        case Row.KEEP_ALIVE | Row.BARE | Row.GROWTH:
            return _ring([Tunnel(load, context, KNOWN) for _ in range(load.connections)])
        case Row.STEADY:
            return _steady(Tunnel(load, context, KNOWN))
        case Row.NEW_CONNECTION | Row.UNPOOLED | Row.RESUMED | Row.TRANSPARENT:
            return _connections(load, repeat(KNOWN), resume=load.row is Row.RESUMED)
        case Row.PASSTHROUGH:
            return _connections(load, repeat(PASSED))
        case Row.FIRST_CONTACT:
            return _connections(load, chain(repeat(KNOWN, WARM_UP_CONNECTIONS), contacts(load.round)))
        case Row.DOWNLOAD:
            return _download(Tunnel(load, context, KNOWN), int(load.megabytes * 1e6))
        case Row.UPLOAD:
            return _upload(Tunnel(load.at(load.live_port), context, KNOWN), int(load.megabytes * 1e6))
        case Row.HTTP2:
            return Http2(Tunnel(load, context, KNOWN)).run
        case Row.WEBSOCKET:
            return _echo(Tunnel(load.at(load.live_port), context, KNOWN))
        case Row.DENIED:
            return _denied(Tunnel(load, context, KNOWN))
        case Row.EVENT_DELAY:
            return _event_delays(Tunnel(load.at(load.live_port), context, KNOWN), load.seconds)
        case Row.CONNECTIONS_RSS | Row.START:
            return _held(load, [])
        case _:
            raise ValueError(f"{load.row} is measured by {load.row.measured_by}")


def warm_up(row: Row) -> int:
    if row in NO_WARM_UP or row in {Row.DOWNLOAD, Row.UPLOAD, Row.EVENT_DELAY}:
        return 0
    return WARM_UP.get(row.against, WARM_UP_CONNECTIONS)


def _ring(tunnels: list[Tunnel]) -> Run:
    """A request on each connection; the next one when it is answered. The proxy always has work."""
    request = tunnels[0].request(SMALL)

    def run(over: Over) -> Iterator[float]:
        waiting: deque[tuple[Tunnel, float]] = deque()
        for tunnel in tunnels:
            if over():
                break
            tunnel.socket.sendall(request)
            waiting.append((tunnel, clock()))
        while waiting:
            tunnel, sent = waiting.popleft()
            tunnel.small()
            yield clock() - sent
            if not over():
                tunnel.socket.sendall(request)
                waiting.append((tunnel, clock()))

    return run


def _steady(tunnel: Tunnel) -> Run:
    """Each request when it is due. What comes late counts from when it was due."""
    request = tunnel.request(SMALL)

    def run(over: Over) -> Iterator[float]:
        due = clock()
        while not over():
            due += STEADY_SECONDS
            time.sleep(max(0.0, due - clock()))
            tunnel.socket.sendall(request)
            tunnel.small()
            yield clock() - due

    return run


def _connections(load: Load, hosts: Iterator[str], *, resume: bool = False) -> Run:
    """TCP, CONNECT, TLS, one request, close."""
    context, session = client_context(load.ca_file), None

    def run(over: Over) -> Iterator[float]:
        nonlocal session
        while not over() and (host := next(hosts, None)):
            start = clock()
            tunnel = Tunnel(load, context, host, session)
            tunnel.socket.sendall(tunnel.request(SMALL))
            tunnel.small()
            if resume:
                session = tunnel.socket.session  # its ticket came with the answer
            tunnel.close()
            yield clock() - start

    return run


def _download(tunnel: Tunnel, size: int) -> Run:
    """One; gives the seconds until its first byte."""

    def run(_: Over) -> Iterator[float]:
        start = clock()
        tunnel.socket.sendall(tunnel.request(BIG, more=f"Range: bytes=0-{size - 1}\r\n"))
        head, piece = tunnel.head(b"206")
        if not piece:
            piece = tunnel.socket.recv(PIECE_BYTES)
        first, left = clock() - start, content_length(head)
        if left != size:
            raise WrongAnswer(f"{left} bytes were announced, not {size}")
        while piece:
            if not ZEROS.startswith(piece):
                raise WrongAnswer("another body")
            left -= len(piece)
            piece = tunnel.socket.recv(min(left, PIECE_BYTES)) if left > 0 else b""
        if left:
            raise WrongAnswer(f"{left} bytes are missing")
        yield first

    return run


def _upload(tunnel: Tunnel, size: int) -> Run:
    def run(_: Over) -> Iterator[float]:
        start, left = clock(), size
        tunnel.socket.sendall(tunnel.request("/upload", method="POST", more=f"Content-Length: {size}\r\n"))
        while left:
            tunnel.socket.sendall(ZEROS if left >= PIECE_BYTES else ZEROS[:left])
            left -= min(left, PIECE_BYTES)
        head, body = tunnel.head(b"200")
        while len(body) < content_length(head):
            body += tunnel.socket.recv(4096)
        if body != str(size).encode():
            raise WrongAnswer(f"{body!r} of {size} bytes arrived")
        yield clock() - start

    return run


def _echo(tunnel: Tunnel) -> Run:
    more = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    more += f"Sec-WebSocket-Key: {handshake_key()}\r\n"
    tunnel.socket.sendall(tunnel.request("/echo", more=more))
    _, rest = tunnel.head(b"101")
    if rest:
        raise WrongAnswer(f"the server has spoken first: {rest!r}")
    sent, expected = client_frame(b"m" * 64)

    def run(over: Over) -> Iterator[float]:
        while not over():
            start = clock()
            tunnel.socket.sendall(sent)
            got = b""
            while len(got) < len(expected):
                if not (piece := tunnel.socket.recv(4096)):
                    raise WrongAnswer("closed instead of an echo")
                got += piece
            if got != expected:
                raise WrongAnswer(f"another echo: {got!r}")
            yield clock() - start

    return run


def _denied(tunnel: Tunnel) -> Run:
    request = tunnel.request(DENIED)

    def run(over: Over) -> Iterator[float]:
        while not over():
            start = clock()
            tunnel.socket.sendall(request)
            head, body = tunnel.head(b"403")
            length = content_length(head)
            while len(body) < length:
                body += tunnel.socket.recv(65536)
            if len(body) != length:
                raise WrongAnswer("more than one answer")
            yield clock() - start

    return run


_STAMP = re.compile(rb"data: (\d+)\n\n")


def _event_delays(tunnel: Tunnel, seconds: float) -> Run:
    """How old each event is when it arrives: both read the machine's one monotonic clock."""
    count = max(1, round(seconds * EVENTS_PER_SECOND))

    def run(_: Over) -> Iterator[float]:
        tunnel.socket.sendall(tunnel.request(f"/events?count={count}"))
        data = tunnel.head(b"200")[1]
        seen = 0
        while True:
            now, end = time.monotonic_ns(), 0
            for stamp in _STAMP.finditer(data):
                seen, end = seen + 1, stamp.end()
                yield (now - int(stamp[1])) / 1e9
            if seen == count and data.endswith(b"0\r\n\r\n"):
                return
            if not (piece := tunnel.socket.recv(65536)):
                raise WrongAnswer(f"{seen} of {count} events arrived, or no end")
            data = data[end:] + piece

    return run


def _held(load: Load, held: list[Tunnel]) -> Run:
    """Connections with one request each, that are kept open until the client is ended."""
    context = client_context(load.ca_file)

    def run(over: Over) -> Iterator[float]:
        while not over():
            start = clock()
            tunnel = Tunnel(load, context, KNOWN)
            tunnel.socket.sendall(tunnel.request(SMALL))
            tunnel.small()
            held.append(tunnel)
            yield clock() - start

    return run
