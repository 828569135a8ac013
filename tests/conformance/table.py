"""Runs the cases through a sidecar, and writes what came of them as the page docs/conformance.md."""

import socket
import ssl
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from websockets.exceptions import ConnectionClosed
from websockets.extensions.permessage_deflate import ServerPerMessageDeflateFactory
from websockets.sync.server import ServerConnection, serve

from tests.conformance import http2, websocket
from tests.hostile.http2 import RawHttp2
from tests.live.sidecars import SECONDS, Sidecar, running
from tests.live.upstreams import Root
from tests.live.wire import secure

POLICY = (
    "version: 1\nrules: [{allow: [echo.test], ports: ['1024-65535']}]\nnetwork: {allow_addresses: [127.0.0.1/32]}\n"
)

_LAST = b"the last one"  # once it is echoed, so are those before it

type Frames = tuple[tuple[int, bytes], ...]  # first byte and payload of each


@dataclass(frozen=True)
class Http2Result:
    case: http2.Case
    outcome: str

    @property
    def conforms(self) -> bool:
        return self.outcome in self.case.may


@dataclass(frozen=True)
class WebSocketResult:
    case: websocket.Case
    direct: Frames
    through: Frames

    @property
    def conforms(self) -> bool:
        return self.direct == self.through and len(self.direct) > 0


def run_http2(sidecar: Sidecar) -> list[Http2Result]:
    """Each case on a connection of its own."""
    results = []
    for case in http2.CASES:
        with secure(sidecar, f"{http2.HOST}:443", alpn=("h2",)) as sock:
            sock.settimeout(SECONDS)
            client = RawHttp2(sock, case.begin)
            client.send(*case.frames(client))
            results.append(Http2Result(case, client.outcome(ends=case.ends)))
    return results


def run_websocket(sidecar: Sidecar, root: Root, port: int) -> list[WebSocketResult]:
    """Each case with the same server, once without the sidecar and once through it."""
    results = []
    context = ssl.create_default_context(cafile=str(root.pem))
    for case in websocket.CASES:
        raw = socket.create_connection(("127.0.0.1", port), SECONDS)
        with context.wrap_socket(raw, server_hostname="echo.test") as sock:
            direct = _converse(sock, case)
        with secure(sidecar, f"echo.test:{port}") as sock:
            results.append(WebSocketResult(case, direct, _converse(sock, case)))
    return results


def _converse(sock: ssl.SSLSocket, case: websocket.Case) -> Frames:
    """Open a WebSocket, write the case's pieces, have the last one echoed, close; and read all that the server says."""
    sock.settimeout(SECONDS)
    echo_of_last = websocket.deflated(_LAST) if case.deflate else _LAST
    lines = [
        "GET / HTTP/1.1",
        "Host: echo.test",
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Version: 13",
    ]
    lines += ["Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="]
    lines += ["Sec-WebSocket-Extensions: permessage-deflate"] if case.deflate else []
    sock.sendall("\r\n".join(lines).encode() + b"\r\n\r\n")
    with sock.makefile("rb") as file:
        status = file.readline()
        assert b" 101 " in status, status
        while file.readline().strip():
            pass
        with suppress(OSError):  # the server may have seen enough
            for piece in case.pieces:
                sock.sendall(piece)
            sock.sendall(websocket.frame(websocket.FIN | websocket.TEXT, _LAST))
        frames: list[tuple[int, bytes]] = []
        with suppress(OSError):
            while head := file.read(2):
                size = head[1]
                if size > 125:
                    size = int.from_bytes(file.read(2 if size == 126 else 8))
                payload = file.read(size)
                if payload == echo_of_last:
                    sock.sendall(websocket.closing(1000, b"the end"))
                else:
                    frames.append((head[0], payload))
    return tuple(frames)


def _echo(connection: ServerConnection) -> None:
    with suppress(ConnectionClosed):
        for message in connection:
            connection.send(message)


@contextmanager
def echoing(root: Root) -> Iterator[int]:
    """The ``websockets`` library's server: strict about whatever it reads."""
    deflate = ServerPerMessageDeflateFactory(server_no_context_takeover=True)
    server = serve(
        _echo, "127.0.0.1", 0, ssl=root.context("echo.test"), compression=None, extensions=[deflate], max_size=1 << 24
    )
    with server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield int(server.socket.getsockname()[1])


def run(folder: Path) -> tuple[list[Http2Result], list[WebSocketResult]]:
    root = Root(folder)
    arguments = ("--upstream-ca", str(root.pem), "--resolve", "echo.test:127.0.0.1")
    with echoing(root) as port, running(folder / "sidecar", POLICY, *arguments) as sidecar:
        return run_http2(sidecar), run_websocket(sidecar, root, port)


def page(of_http2: list[Http2Result], of_websocket: list[WebSocketResult]) -> str:
    """The same results, the same text."""
    lines = [
        "# Conformance",
        "",
        "Written by `python -m tests.conformance > docs/conformance.md`; a test holds that it is current.",
        "For HTTP/1, see `tests/hostile`: what goes upstream is read as the judged requests by h11, llhttp, aiohttp,",
        "Node, Go, nginx and a grammar of RFC 9112 without options.",
        "",
        f"## HTTP/2, as a server: {sum(r.conforms for r in of_http2)} of {len(of_http2)}",
        "",
        "h2spec is in none of the package registries that the tests may use. These cases ask what it asks, by",
        "handmade frames, of a name that is denied: the sidecar itself is the server then. What may come is what",
        "RFC 9113 allows; an error of the connection may stand for one of a stream (section 5.4.1).",
        "",
        "| RFC 9113 | sent | may come | came |",
        "|---|---|---|---|",
    ]
    for result in of_http2:
        may = ", ".join(f"`{outcome}`" for outcome in result.case.may)
        mark = "" if result.conforms else " **no**"
        lines.append(f"| {result.case.section} | {_cell(result.case.sent)} | {may} | `{result.outcome}`{mark} |")
    lines += [
        "",
        f"## WebSocket, between two peers: {sum(r.conforms for r in of_websocket)} of {len(of_websocket)}",
        "",
        "The Autobahn test suite runs on Python 2 alone. These cases follow its sections: a client of handmade frames",
        "and the `websockets` library's server, without the sidecar and through it. Each frame that the client gets",
        "has to be the same, the close with its code and reason too.",
        "",
        "| RFC 6455 | sent | the server's frames | through the sidecar |",
        "|---|---|---|---|",
    ]
    for result_ in of_websocket:
        same = "the same" if result_.conforms else f"{_told(result_.through)} **no**"
        lines.append(f"| {result_.case.section} | {_cell(result_.case.sent)} | {_told(result_.direct)} | {same} |")
    return "\n".join(lines) + "\n"


_NAMES = {0: "more", 1: "text", 2: "binary", 8: "close", 9: "ping", 10: "pong"}


def _told(frames: Frames) -> str:
    """Kinds and sizes; of a close its code."""
    told = []
    for kind, group in groupby(_kind(*frame) for frame in frames):
        count = len(list(group))
        told.append(kind if count == 1 else f"{count} × {kind}")
    return ", ".join(told) or "none"


def _kind(first: int, payload: bytes) -> str:
    name = _NAMES[first & 15]
    if name == "close":
        return f"close {struct.unpack_from('!H', payload)[0]}" if payload else "close"
    return f"{name} of {len(payload)}"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
