"""Protocols through interception: WebSocket, gRPC, long polling, HTTP's less usual turns arrive as they were sent."""

import asyncio
import itertools
import socket
import ssl
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import aiohttp
import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.settings
import pytest
from aiohttp import WSCloseCode, WSMsgType, web
from mitmproxy import ctx

from addons import protocol
from tests.live.inprocess import in_process
from tests.live.sidecars import SECONDS, Line, Sidecar, running, until
from tests.live.threads import serving_protocol
from tests.live.upstreams import Root, Seen, serving
from tests.live.wire import Http2Client, answer, ask, get, secure, trusting, tunnel

pytestmark = pytest.mark.live

MIB: Final = 1 << 20
IDLE_SECONDS: Final = 2

POLICY = """
version: 1
rules:
  - deny: ["denied.test"]
  - allow: ["allowed.test"]
    ports: ["1024-65535"]
network:
  allow_addresses: ["127.0.0.1"]
"""


@dataclass
class WebSockets:
    """A WebSocket upstream, and how each of its connections ended."""

    port: int = 0
    closes: list[tuple[int | None, str]] = field(default_factory=list)
    compressed: list[bool] = field(default_factory=list)
    pings: list[bytes] = field(default_factory=list)

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Echoes; ``/closes`` closes by itself, ``/pings`` sends a ping first, ``/drops`` hangs up."""
        ws = web.WebSocketResponse(max_msg_size=0, protocols=("chat",), autoping=False, autoclose=True)
        await ws.prepare(request)
        self.compressed.append(bool(ws.compress))
        if request.path == "/closes":
            await ws.close(code=4002, message=b"enough")
        if request.path == "/pings":
            await ws.ping(b"from the upstream")
        if request.path == "/drops":
            assert request.transport is not None
            request.transport.abort()
        async for message in ws:
            match message.type:
                case WSMsgType.TEXT:
                    await ws.send_str(message.data)
                case WSMsgType.BINARY:
                    await ws.send_bytes(message.data)
                case WSMsgType.PING:
                    self.pings.append(bytes(message.data))
                    await ws.pong(message.data)
                case WSMsgType.PONG:
                    await ws.send_bytes(b"pong: " + bytes(message.data))
        self.closes.append((ws.close_code, str(ws.exception() or "")))
        return ws


@dataclass(frozen=True)
class Scene:
    sidecar: Sidecar
    root: Root
    port: int
    seen: Seen
    websockets: WebSockets
    idle: Sidecar  # another one, that gives idle connections `IDLE_SECONDS`


@contextmanager
def _serving_websockets(root: Root) -> Iterator[WebSockets]:
    upstream, loop, stop, started = WebSockets(), asyncio.new_event_loop(), asyncio.Event(), threading.Event()

    async def main() -> None:
        app = web.Application()
        app.router.add_get("/{path:.*}", upstream.answer)
        runner = web.AppRunner(app, shutdown_timeout=0.1, handler_cancellation=True)
        await runner.setup()
        # It could do HTTP/2 as well, if it were asked: no client's WebSocket may come by that.
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=root.context("allowed.test")).start()
        upstream.port = runner.addresses[0][1]
        started.set()
        await stop.wait()
        await runner.cleanup()

    thread = threading.Thread(target=loop.run_until_complete, args=(main(),), daemon=True)
    thread.start()
    assert started.wait(SECONDS)
    try:
        yield upstream
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(SECONDS)


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    folder = tmp_path_factory.mktemp("protocols")
    root = Root(folder)
    arguments = ("--upstream-ca", str(root.pem), "--resolve", "allowed.test:127.0.0.1")
    idle = ("--idle-seconds", str(IDLE_SECONDS))
    with (
        serving(root.context("allowed.test")) as (port, seen),
        _serving_websockets(root) as websockets,
        running(folder / "sidecar", POLICY, *arguments) as sidecar,
        running(folder / "idle", POLICY, *arguments, *idle) as impatient,
    ):
        yield Scene(sidecar, root, port, seen, websockets, impatient)


# --- WebSocket


type Talk[T] = Callable[[aiohttp.ClientWebSocketResponse], Any]


def talk(scene: Scene, path: str, to_do: Talk[Any], **options: Any) -> Any:
    """Open a WebSocket to the upstream and do what *to_do* says with it."""

    async def main() -> Any:
        url = f"wss://allowed.test:{scene.websockets.port}{path}"
        options.setdefault("max_msg_size", 0)
        async with (
            aiohttp.ClientSession() as session,
            session.ws_connect(url, proxy=scene.sidecar.proxy, ssl=trusting(scene.sidecar), **options) as ws,
        ):
            return await to_do(ws)

    return asyncio.run(asyncio.wait_for(main(), SECONDS))


@pytest.mark.parametrize("compress", [0, 15, 9], ids=["plain", "permessage-deflate", "with a small window"])
@pytest.mark.parametrize(
    "message",
    [
        pytest.param("", id="empty text"),
        pytest.param("grüße 🙂" * 10, id="text"),
        pytest.param(b"\x00\xff" * 50, id="binary"),
        pytest.param("é" * 70_000, id="text larger than a read"),
        pytest.param(bytes(range(256)) * 16_384, id="4 MiB"),
    ],
)
def test_a_websocket_message_arrives_as_it_was_sent(scene: Scene, message: str | bytes, compress: int) -> None:
    async def echo(ws: aiohttp.ClientWebSocketResponse) -> tuple[Any, bool, str | None]:
        await (ws.send_str(message) if isinstance(message, str) else ws.send_bytes(message))
        return (await ws.receive()).data, bool(ws.compress), ws.protocol

    heard, compressed, protocol = talk(scene, "/echo", echo, compress=compress, protocols=("chat",))

    assert heard == message
    assert compressed is bool(compress)
    assert protocol == "chat"
    assert scene.websockets.compressed[-1] is bool(compress)


def test_pings_and_pongs_go_from_end_to_end(scene: Scene) -> None:
    async def ping(ws: aiohttp.ClientWebSocketResponse) -> list[tuple[WSMsgType, bytes]]:
        await ws.ping(b"from the client")
        received = [await ws.receive(), await ws.receive()]
        await ws.pong(received[0].data)
        received.append(await ws.receive())
        return [(message.type, bytes(message.data)) for message in received]

    heard = talk(scene, "/pings", ping, autoping=False)

    assert heard == [
        (WSMsgType.PING, b"from the upstream"),
        (WSMsgType.PONG, b"from the client"),
        (WSMsgType.BINARY, b"pong: from the upstream"),
    ]
    assert scene.websockets.pings[-1] == b"from the client"


def test_a_close_code_of_the_client_reaches_the_upstream(scene: Scene) -> None:
    talk(scene, "/echo", lambda ws: ws.close(code=4001, message=b"bye"))

    until(lambda: (4001, "") in scene.websockets.closes, "close code 4001")


def test_a_close_code_of_the_upstream_reaches_the_client(scene: Scene) -> None:
    async def wait(ws: aiohttp.ClientWebSocketResponse) -> tuple[Any, Any]:
        message = await ws.receive()
        return message.data, message.extra

    assert talk(scene, "/closes", wait) == (4002, "enough")
    assert scene.sidecar.event("request_closed", path="/closes")["status"] == 101


def test_an_upstream_that_hangs_up_ends_the_websocket(scene: Scene) -> None:
    async def wait(ws: aiohttp.ClientWebSocketResponse) -> tuple[WSMsgType, int | None]:
        return (await ws.receive()).type, ws.close_code

    type_, code = talk(scene, "/drops", wait)

    assert type_ in (WSMsgType.CLOSE, WSMsgType.CLOSED, WSMsgType.ERROR) and code != WSCloseCode.OK
    scene.sidecar.event("request_closed", path="/drops")


def websocket(scene: Scene, path: str) -> ssl.SSLSocket:
    """A WebSocket of which this test writes each frame."""
    sock = secure(scene.sidecar, f"allowed.test:{scene.websockets.port}")
    upgrade = ("Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13")
    key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="
    sock.sendall(get(f"allowed.test:{scene.websockets.port}", path, *upgrade, key))
    head = b""
    while b"\r\n\r\n" not in head:
        head += sock.recv(1)
    assert head.startswith(b"HTTP/1.1 101 "), head
    return sock


def frame(first: int, payload: bytes) -> bytes:
    """A masked frame (RFC 6455, section 5.2); the mask is zero, so the payload is readable."""
    size = len(payload)
    length = bytes([0x80 | size]) if size < 126 else b"\xfe" + struct.pack("!H", size)
    if size > 65_535:
        length = b"\xff" + struct.pack("!Q", size)
    return bytes([first]) + length + b"\0\0\0\0" + payload


def read_frame(sock: ssl.SSLSocket) -> tuple[int, bytes]:
    with sock.makefile("rb", buffering=0) as file:  # no read-ahead

        def exactly(size: int) -> bytes:
            data = bytearray()
            while len(data) < size:
                piece = file.read(min(size - len(data), MIB))
                assert piece, "the connection has ended"
                data += piece
            return bytes(data)

        first, size = exactly(2)
        if size == 126:
            (size,) = struct.unpack("!H", exactly(2))
        elif size == 127:
            (size,) = struct.unpack("!Q", exactly(8))
        return first, exactly(size)


def test_a_fragmented_message_may_have_a_ping_between_its_fragments(scene: Scene) -> None:
    with websocket(scene, "/fragments") as sock:
        sock.sendall(frame(0x01, b"one, ") + frame(0x00, b"two, "))
        sock.sendall(frame(0x89, b"now") + frame(0x80, b"three"))
        heard = [read_frame(sock), read_frame(sock)]

    assert sorted(heard) == [(0x81, b"one, two, three"), (0x8A, b"now")]


def test_a_large_message_is_relayed_as_it_comes(scene: Scene) -> None:
    size, piece = 64 * MIB, b"x" * 65_536
    Path(f"/proc/{scene.sidecar.process.pid}/clear_refs").write_text("5")  # the peak starts again from here
    before = scene.sidecar.rss()
    with websocket(scene, "/large") as sock:
        sock.settimeout(SECONDS)
        sock.sendall(b"\x82\xff" + struct.pack("!Q", size) + b"\0\0\0\0")
        for _ in range(size // len(piece)):
            sock.sendall(piece)
        first, heard = read_frame(sock)

    assert (first, len(heard)) == (0x82, size)
    assert scene.sidecar.peak_rss() - before < size / 2


def test_a_websocket_of_a_denied_host_is_refused_with_the_reason(scene: Scene) -> None:
    with secure(scene.sidecar, "denied.test:443") as sock:
        upgrade = ("Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: AAAA")
        got = ask(sock, get("denied.test", "/ws", *upgrade))

    assert (got.status, got.reason) == (403, "rule_deny")


def test_a_client_that_is_slow_to_speak_to_a_denied_host_still_reads_why(scene: Scene) -> None:
    sock = tunnel(scene.sidecar, "denied.test:443")
    time.sleep(2 * protocol.SILENT_SECONDS)  # as a starved container does between connect and ClientHello
    with trusting(scene.sidecar).wrap_socket(sock, server_hostname="denied.test") as secured:
        got = ask(secured, get("denied.test"))

    assert (got.status, got.reason) == (403, "rule_deny")


def test_websockets_over_http_2_are_not_offered_so_clients_use_http_1(scene: Scene) -> None:
    with (
        grpc(scene.root, lambda server, stream: server.reply(stream, end=True)) as (port, _),
        secure(scene.sidecar, f"allowed.test:{port}", alpn=("h2", "http/1.1")) as sock,
    ):
        client = Http2Client(sock)
        while not any(isinstance(event, h2.events.RemoteSettingsChanged) for event in client.read()):
            pass
        offered = client.h2.remote_settings.get(h2.settings.SettingCodes.ENABLE_CONNECT_PROTOCOL, 0)
        asked = client.ask(f"allowed.test:{port}", "/ws", (":protocol", "websocket"), method="CONNECT")

    assert offered == 0, "RFC 8441, section 3: without it, a client must not use extended CONNECT"
    assert asked is None, "one who does is refused"


# --- gRPC: HTTP/2 with trailers, framed messages and streams in both directions


def message(payload: bytes) -> bytes:
    """Length-prefixed, not compressed (gRPC over HTTP2, "Length-Prefixed-Message")."""
    return b"\0" + struct.pack("!I", len(payload)) + payload


class GrpcServer(asyncio.Protocol):
    """An HTTP/2 server that hands each piece of a stream to *on_data* as it comes."""

    def __init__(self, heard: list[Any], on_data: Callable[["GrpcServer", int], None], at_once: int) -> None:
        self.heard, self._on_data = heard, on_data
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False, header_encoding="utf-8"))
        self.h2.local_settings.max_concurrent_streams = at_once
        self.h2.local_settings.acknowledge()
        self.received: dict[int, bytes] = {}
        self.ended: set[int] = set()
        self._begun: set[int] = set()

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.heard.append("connection")
        self.h2.initiate_connection()
        transport.write(self.h2.data_to_send())

    def data_received(self, data: bytes) -> None:
        for event in self.h2.receive_data(data):
            match event:
                case h2.events.RequestReceived():
                    self.received[event.stream_id or 0] = b""
                    self.heard.append(dict(event.headers or ()))
                case h2.events.DataReceived():
                    self.received[event.stream_id or 0] += event.data or b""
                    self.h2.acknowledge_received_data(event.flow_controlled_length or 0, event.stream_id or 0)
                    self._on_data(self, event.stream_id or 0)
                case h2.events.TrailersReceived():
                    self.heard.append(("trailers", dict(event.headers or ())))
                case h2.events.StreamEnded():
                    self.ended.add(event.stream_id or 0)
                    self._on_data(self, event.stream_id or 0)
                case h2.events.StreamReset():
                    self.heard.append(("reset", event.error_code))
        self.flush()

    def flush(self) -> None:
        self.transport.write(self.h2.data_to_send())

    def reply(
        self,
        stream: int,
        *payloads: bytes,
        status: int | None = None,
        end: bool = False,
        headers: Sequence[tuple[str, str]] = (),
    ) -> None:
        """Messages; with *status* trailers, as the whole answer where nothing was said before."""
        trailers = [("grpc-status", str(status))]
        if stream not in self._begun:
            self._begun.add(stream)
            head = [(":status", "200"), ("content-type", "application/grpc"), *headers]
            if status is not None and not payloads:
                self.h2.send_headers(stream, [*head, *trailers], end_stream=True)
                return
            self.h2.send_headers(stream, head)
        for payload in payloads:
            self.h2.send_data(stream, message(payload))
        if status is not None:
            self.h2.send_headers(stream, trailers, end_stream=True)
        elif end:
            self.h2.end_stream(stream)
        self.flush()


@contextmanager
def grpc(
    root: Root, on_data: Callable[[GrpcServer, int], None], *, at_once: int = 100
) -> Iterator[tuple[int, list[Any]]]:
    """Serve on a free port, so many streams *at_once*; gives the port, and what was heard."""
    heard: list[Any] = []
    context = root.context("allowed.test", alpn=("h2",))
    with serving_protocol(lambda: GrpcServer(heard, on_data, at_once), context) as port:
        yield port, heard


class Call:
    """One gRPC call of a client; what has arrived of its answer."""

    def __init__(self, client: Http2Client, port: int, method: str, *headers: tuple[str, str]) -> None:
        self.client, self.head, self.trailers = client, dict[str, str](), dict[str, str]()
        self.body, self.ended = b"", False
        self.reset: int | None = None
        typed = ("content-type", "application/grpc"), ("te", "trailers")
        self.stream = client.open(
            f"allowed.test:{port}", f"/echo.Echo/{method}", *typed, *headers, method="POST", end=False
        )

    def send(self, *payloads: bytes, end: bool = False) -> None:
        for payload in payloads:
            self.client.h2.send_data(self.stream, message(payload))
        if end:
            self.client.h2.end_stream(self.stream)
        self.client.flush()

    def take(self) -> None:
        """The next events, of this call alone."""
        events = self.client.read()
        assert events, "the connection has ended"
        for event in events:
            match event:
                case h2.events.ResponseReceived():
                    self.head = {str(k): str(v) for k, v in event.headers or ()}
                case h2.events.TrailersReceived():
                    self.trailers = {str(k): str(v) for k, v in event.headers or ()}
                case h2.events.DataReceived():
                    self.body += event.data or b""
                case h2.events.StreamEnded():
                    self.ended = True
                case h2.events.StreamReset():
                    self.reset, self.ended = event.error_code, True

    def next(self) -> bytes:
        """The next message."""
        while len(self.body) < 5 or len(self.body) < 5 + int.from_bytes(self.body[1:5]):
            assert not self.ended
            self.take()
        size = int.from_bytes(self.body[1:5])
        payload, self.body = self.body[5 : 5 + size], self.body[5 + size :]
        return payload

    def finish(self) -> str | None:
        """The status, once the call has ended."""
        while not self.ended:
            self.take()
        return (self.trailers or self.head).get("grpc-status")


@contextmanager
def calling(
    scene: Scene, on_data: Callable[[GrpcServer, int], None], method: str, *headers: tuple[str, str]
) -> Iterator[tuple[Call, list[Any]]]:
    with (
        grpc(scene.root, on_data) as (port, heard),
        secure(scene.sidecar, f"allowed.test:{port}", alpn=("h2",)) as sock,
    ):
        sock.settimeout(SECONDS)
        yield Call(Http2Client(sock), port, method, *headers), heard


@pytest.mark.parametrize("payload", [b"hello", b"", b"x" * 200_000], ids=["small", "empty", "larger than a window"])
def test_grpc_unary(scene: Scene, payload: bytes) -> None:
    def serve(server: GrpcServer, stream: int) -> None:
        if stream in server.ended:
            received = server.received[stream]
            answer = message(b"") if len(received) == 5 else message(b"%d bytes" % len(received[5:]))
            server.reply(stream, answer[5:], status=0)

    with calling(scene, serve, "Unary", ("grpc-timeout", "10S"), ("x-bin", "AA==")) as (call, heard):
        for start in range(0, len(payload) + 5, 16_000):  # frames of less than the default maximum
            call.client.h2.send_data(call.stream, message(payload)[start : start + 16_000])
            call.client.flush()
            while call.client.h2.local_flow_control_window(call.stream) < 16_000:
                call.take()
        call.send(end=True)
        answer = call.next()
        status = call.finish()

    assert answer == (b"%d bytes" % len(payload) if payload else b"")
    assert (status, call.trailers, call.head["content-type"]) == ("0", {"grpc-status": "0"}, "application/grpc")
    assert (heard[1]["te"], heard[1]["grpc-timeout"], heard[1]["x-bin"]) == ("trailers", "10S", "AA==")


def test_grpc_server_streaming(scene: Scene) -> None:
    def serve(server: GrpcServer, stream: int) -> None:
        if stream in server.ended:
            server.reply(stream, *(b"%d" % i for i in range(100)))
            server.reply(stream, status=0)

    with calling(scene, serve, "ServerStream") as (call, _):
        call.send(b"", end=True)
        heard = [call.next() for _ in range(100)]
        status = call.finish()

    assert (heard, status) == ([b"%d" % i for i in range(100)], "0")


def _echo(server: GrpcServer, stream: int) -> None:
    """Each message at once, the status once the client has ended."""
    received = server.received[stream]
    while len(received) >= 5 and len(received) >= 5 + int.from_bytes(received[1:5]):
        size = int.from_bytes(received[1:5])
        server.reply(stream, received[5 : 5 + size])
        received = received[5 + size :]
    server.received[stream] = received
    if stream in server.ended:
        server.reply(stream, status=0)


def test_grpc_bidirectional_streaming_takes_turns(scene: Scene) -> None:
    with calling(scene, _echo, "Bidi") as (call, _):
        for payload in (b"one", b"", b"three" * 1000):
            call.send(payload)
            assert call.next() == payload, "the answer to one message comes before the next is sent"
        call.send(end=True)
        status = call.finish()

    assert (status, call.body) == ("0", b"")
    closed = scene.sidecar.event("request_closed", path="/echo.Echo/Bidi")
    assert closed["bytes_out"] == closed["bytes_in"] == 3 * 5 + 3 + 5000


def test_grpc_an_error_without_any_message_is_trailers_alone(scene: Scene) -> None:
    with calling(scene, lambda server, stream: server.reply(stream, status=5), "NotFound") as (call, _):
        call.send(b"x")
        assert call.finish() == "5"

    assert call.head["grpc-status"] == "5" and not call.trailers


def test_grpc_an_error_that_comes_while_the_client_still_sends_ends_the_call(scene: Scene) -> None:
    with calling(scene, lambda server, stream: server.reply(stream, b"partial", status=8), "Early") as (call, _):
        call.send(b"x")  # and doesn't end
        assert call.next() == b"partial"
        assert call.finish() == "8"


def test_grpc_a_cancelled_call_is_cancelled_upstream(scene: Scene) -> None:
    with calling(scene, _echo, "Cancelled") as (call, heard):
        call.send(b"one")
        assert call.next() == b"one"
        call.client.h2.reset_stream(call.stream, h2.errors.ErrorCodes.CANCEL)
        call.client.flush()
        until(lambda: ("reset", h2.errors.ErrorCodes.CANCEL) in heard, "reset")

        line = scene.sidecar.event("request_failed", path="/echo.Echo/Cancelled")
    assert line["reason"] == "client_disconnected"


def test_grpc_a_call_that_the_upstream_resets_is_reset(scene: Scene) -> None:
    def serve(server: GrpcServer, stream: int) -> None:
        server.reply(stream, b"one")
        server.h2.reset_stream(stream, h2.errors.ErrorCodes.CANCEL)

    with calling(scene, serve, "Reset") as (call, _):
        call.send(b"x")
        call.finish()

    assert call.reset == h2.errors.ErrorCodes.CANCEL
    scene.sidecar.event("request_failed", path="/echo.Echo/Reset")


def test_trailers_of_a_request_arrive(scene: Scene) -> None:
    def serve(server: GrpcServer, stream: int) -> None:
        if stream in server.ended:
            server.reply(stream, status=0)

    with calling(scene, serve, "Trailers") as (call, heard):
        call.send(b"x")
        call.client.h2.send_headers(call.stream, [("x-sum", "1")], end_stream=True)
        call.client.flush()
        assert call.finish() == "0"

    assert ("trailers", {"x-sum": "1"}) in heard


# --- HTTP/2


def test_a_hundred_streams_at_once_share_one_upstream_connection(scene: Scene) -> None:
    waiting: list[int] = []

    def serve(server: GrpcServer, stream: int) -> None:
        waiting.append(stream)
        if len(waiting) == 100:  # none is answered before all are there
            for each in waiting:
                server.reply(each, b"", end=True)

    with (
        grpc(scene.root, serve) as (port, heard),
        secure(scene.sidecar, f"allowed.test:{port}", alpn=("h2",)) as sock,
    ):
        client = Http2Client(sock)
        streams = {client.open(f"allowed.test:{port}", f"/many/{i}") for i in range(100)}
        ended: set[int] = set()
        while ended < streams:
            ended |= {event.stream_id for event in client.read() if isinstance(event, h2.events.StreamEnded)}

    assert heard.count("connection") == 1
    paths = {f"/many/{i}" for i in range(100)}
    until(lambda: paths <= {line["path"] for line in scene.sidecar.events("request_closed")}, "a record for each")


def test_streams_beyond_the_upstreams_limit_wait_for_their_turn(scene: Scene) -> None:
    with (
        grpc(scene.root, lambda server, stream: server.reply(stream, b"", end=True), at_once=3) as (port, heard),
        secure(scene.sidecar, f"allowed.test:{port}", alpn=("h2",)) as sock,
    ):
        client = Http2Client(sock)
        assert client.ask(f"allowed.test:{port}") is not None  # before the limit is known, more may be opened
        streams = {client.open(f"allowed.test:{port}", f"/turns/{i}") for i in range(50)}
        ended: set[int] = set()
        while ended < streams:
            ended |= {event.stream_id for event in client.read() if isinstance(event, h2.events.StreamEnded)}

    assert heard.count("connection") == 1


def test_an_answer_that_comes_before_an_upload_over_http_2_ends_is_whole(scene: Scene) -> None:
    with calling(scene, lambda server, stream: server.reply(stream, b"too much", end=True), "Early413") as (call, _):
        call.send(b"x")  # and doesn't end
        assert call.next() == b"too much"
        call.finish()

    assert call.reset in (None, h2.errors.ErrorCodes.NO_ERROR)


def test_early_hints_over_http_2_are_no_answer(scene: Scene) -> None:
    def serve(server: GrpcServer, stream: int) -> None:
        server.h2.send_headers(stream, [(":status", "103"), ("link", "</style.css>")])
        server.reply(stream, b"late", end=True)

    with calling(scene, serve, "Hints") as (call, _):
        call.send(b"x", end=True)
        assert call.next() == b"late"
        call.finish()

    assert call.head[":status"] == "200"


@pytest.mark.parametrize(
    ("upstream", "client", "chosen"),
    [
        pytest.param(("h2", "http/1.1"), ("h2", "http/1.1"), "h2", id="both speak both"),
        pytest.param(("http/1.1",), ("h2", "http/1.1"), "http/1.1", id="an upstream of HTTP/1.1 alone"),
        pytest.param(("h2", "http/1.1"), ("http/1.1",), "http/1.1", id="a client of HTTP/1.1 alone"),
        pytest.param(("h2", "http/1.1"), (), None, id="a client that says nothing"),
        pytest.param(("http/1.1",), ("h2",), None, id="no protocol in common"),
    ],
)  # fmt: skip
def test_both_sides_of_the_sidecar_speak_one_version(
    scene: Scene, upstream: tuple[str, ...], client: tuple[str, ...], chosen: str | None
) -> None:
    with (
        saying(scene.root.context("allowed.test", alpn=upstream), OK) as (port, heard),
        secure(scene.sidecar, f"allowed.test:{port}", alpn=client) as sock,
    ):
        assert sock.selected_alpn_protocol() == chosen
        if chosen != "h2":
            assert ask(sock, get(f"allowed.test:{port}")).body == b"hello"
            assert heard


# --- HTTP/1.1


OK = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"


@contextmanager
def saying(context: ssl.SSLContext | None, *responses: bytes) -> Iterator[tuple[int, list[bytes]]]:
    """An upstream that answers heads with *responses*, the last one again and again; keeps connections open."""
    heard: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve(sock: socket.socket) -> None:
            try:
                with context.wrap_socket(sock, server_side=True) if context else sock as secured:
                    secured.settimeout(SECONDS)
                    buffer = b""
                    for response in itertools.chain(responses, itertools.repeat(responses[-1])):
                        while b"\r\n\r\n" not in buffer:
                            if not (data := secured.recv(65_536)):
                                return
                            buffer += data
                        head, _, buffer = buffer.partition(b"\r\n\r\n")
                        heard.append(head)
                        secured.sendall(response)
            except OSError:
                pass

        def accept() -> None:
            while True:
                try:
                    sock, _ = listener.accept()
                except OSError:
                    return
                threading.Thread(target=serve, args=(sock,), daemon=True).start()

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        try:
            yield listener.getsockname()[1], heard
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join(SECONDS)


def test_requests_on_one_connection_share_one_upstream_connection(scene: Scene) -> None:
    authority = f"allowed.test:{scene.port}"
    with secure(scene.sidecar, authority) as sock:
        before = scene.root.connections
        answers = [ask(sock, get(authority, f"/keep-alive/{i}")) for i in range(10)]

    assert [answer.status for answer in answers] == [200] * 10
    assert scene.root.connections == before, "the one that was opened for the handshake"


def test_pipelined_requests_are_answered_in_their_order(scene: Scene) -> None:
    authority = f"allowed.test:{scene.port}"
    with secure(scene.sidecar, authority) as sock:
        sock.sendall(b"".join(get(authority, f"/bytes/{size}") for size in (1, 2, 3)) + get(authority, "/hello"))
        answers = [answer(sock) for _ in range(4)]

    assert [len(each.body) for each in answers[:3]] == [1, 2, 3]
    assert answers[3].body.startswith(b"hello")


def test_many_pipelined_requests_that_are_denied_are_answered_one_after_the_other(scene: Scene) -> None:
    """Each is answered without waiting for anybody: the next must not begin within it."""
    authority = f"denied.test:{scene.port}"
    with secure(scene.sidecar, authority) as sock:
        sock.sendall(get(authority, "/many") * 500)
        answers = [answer(sock).status for _ in range(500)]

    assert answers == [403] * 500


@pytest.mark.parametrize(
    ("method", "response", "body"),
    [
        pytest.param("HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n", b"", id="HEAD with a length"),
        pytest.param("HEAD", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"", id="HEAD, chunked"),
        pytest.param("GET", b"HTTP/1.1 204 No Content\r\n\r\n", b"", id="204"),
        pytest.param("GET", b'HTTP/1.1 304 Not Modified\r\nETag: "a"\r\nContent-Length: 9\r\n\r\n', b"", id="304"),
        pytest.param("DELETE", b"HTTP/1.1 205 Reset Content\r\nContent-Length: 0\r\n\r\n", b"", id="205"),
        pytest.param("GET", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", b"", id="an empty body"),
        pytest.param("OPTIONS", OK, b"hello", id="OPTIONS"),
    ],
)  # fmt: skip
def test_a_message_without_a_body_leaves_the_connection_in_step(
    scene: Scene, method: str, response: bytes, body: bytes
) -> None:
    with (
        saying(scene.root.context("allowed.test"), response, OK) as (port, heard),
        secure(scene.sidecar, f"allowed.test:{port}") as sock,
    ):
        first = ask(sock, get(f"allowed.test:{port}", "/first", method=method), method=method)
        second = ask(sock, get(f"allowed.test:{port}", "/second"))

    assert (first.status, first.body) == (int(response.split()[1]), body)
    for name in (b"Content-Length", b"ETag"):
        if name in response and method == "HEAD":
            assert name.decode().lower() in first.headers
    assert second.body == b"hello"
    assert len(heard) == 2


@pytest.mark.parametrize("alpn", ["http/1.1", "h2"])
def test_large_headers_arrive(scene: Scene, alpn: str) -> None:
    value = "x" * 8_000
    headers = {f"x-{i}": value for i in range(4)}

    def serve(server: GrpcServer, stream: int) -> None:
        server.reply(stream, end=True, headers=tuple(headers.items()))

    if alpn == "h2":
        with (
            grpc(scene.root, serve) as (port, heard),
            secure(scene.sidecar, f"allowed.test:{port}", alpn=("h2",)) as sock,
        ):
            got = Http2Client(sock).ask(f"allowed.test:{port}", "/", *headers.items())
            arrived = heard[1]
    else:
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items()).encode()
        response = b"HTTP/1.1 200 OK\r\n" + lines + b"Content-Length: 0\r\n\r\n"
        with (
            saying(scene.root.context("allowed.test"), response) as (port, raw),
            secure(scene.sidecar, f"allowed.test:{port}") as sock,
        ):
            got = ask(sock, get(f"allowed.test:{port}", "/", *(f"{k}: {v}" for k, v in headers.items())))
            arrived = dict(line.split(": ", 1) for line in raw[0].decode().split("\r\n")[1:])

    assert got is not None
    assert headers.items() <= got.headers.items()
    assert headers.items() <= {k.lower(): v for k, v in arrived.items()}.items()


def test_headers_beyond_the_limit_are_refused(scene: Scene) -> None:
    authority = f"allowed.test:{scene.port}"
    with secure(scene.sidecar, authority) as sock:
        many = (f"x-{i}: {'x' * 8_000}" for i in range(60))
        with suppress(OSError):  # the answer is there all the same
            sock.sendall(get(authority, "/beyond", *many))
        got = answer(sock)

    assert got.status == 431
    assert not scene.sidecar.events(path="/beyond")


def test_headers_beyond_the_limit_end_an_http_2_connection(scene: Scene) -> None:
    with (
        grpc(scene.root, lambda server, stream: server.reply(stream, end=True)) as (port, _),
        secure(scene.sidecar, f"allowed.test:{port}", alpn=("h2",)) as sock,
    ):
        many = ((f"x-{i}", "x" * 8_000) for i in range(10))
        got = Http2Client(sock).ask(f"allowed.test:{port}", "/beyond/h2", *many)

    assert got is None
    assert not scene.sidecar.events(path="/beyond/h2")


def test_a_client_that_closes_its_direction_has_hung_up(scene: Scene) -> None:
    """As with most servers: who cancels a long request looks just like that, and upstream the work is to stop."""
    scene.seen.release.clear()
    authority = f"allowed.test:{scene.port}"
    with secure(scene.sidecar, authority) as sock:
        sock.sendall(get(authority, "/hold?half"))
        until(lambda: any(path == "/hold?half" for _, path, _ in scene.seen.requests), "the request upstream")
        sock.shutdown(socket.SHUT_WR)
        failed = scene.sidecar.event("request_failed", path="/hold")

    assert failed["reason"] == "client_disconnected"


@pytest.mark.parametrize("framing", ["Content-Length: 8", "Transfer-Encoding: chunked"])
def test_an_answer_that_comes_before_an_upload_ends_is_whole(scene: Scene, framing: str) -> None:
    chunked = b"HTTP/1.1 413 Too Large\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
    half = b"4\r\nhalf\r\n" if "chunked" in framing else b"half"
    with (
        saying(scene.root.context("allowed.test"), chunked) as (port, _),
        secure(scene.sidecar, f"allowed.test:{port}") as sock,
    ):
        got = ask(sock, get(f"allowed.test:{port}", "/early", framing, method="POST") + half)
        sock.sendall(half + (b"0\r\n\r\n" if "chunked" in framing else b""))
        again = ask(sock, get(f"allowed.test:{port}", "/again"))

    assert (got.status, got.body) == (413, b"hello")
    assert (again.status, again.body) == (413, b"hello"), "the connection is still in step"


# --- Waiting


def test_long_polling_outlasts_silence(scene: Scene) -> None:
    scene.seen.release.clear()
    authority = f"allowed.test:{scene.port}"
    with secure(scene.sidecar, authority) as sock:
        sock.sendall(get(authority, "/hold"))
        until(lambda: any(path == "/hold" for _, path, _ in scene.seen.requests), "the request upstream")
        scene.seen.release.set()
        assert answer(sock).body == b"released\n"


def test_silent_upstreams_are_kept_alive_by_tcp(scene: Scene) -> None:
    scene.seen.release.clear()
    authority = f"allowed.test:{scene.port}"
    with secure(scene.sidecar, authority) as sock:
        sock.sendall(get(authority, "/hold?alive"))
        until(lambda: any(path == "/hold?alive" for _, path, _ in scene.seen.requests), "the request upstream")

        def timer() -> bool:
            sockets = subprocess.run(["ss", "-Htno", "dport", "=", f":{scene.port}"], capture_output=True, text=True)
            return "timer:(keepalive," in sockets.stdout

        until(timer, "keep-alive timer")
        scene.seen.release.set()
        assert answer(sock).status == 200


def test_idle_connections_have_an_hour(tmp_path: Path) -> None:
    root = Root(tmp_path)
    with (
        serving(root.context("allowed.test")) as (port, _),
        in_process(tmp_path, POLICY, upstream_ca=root.pem, names=("allowed.test",)) as sidecar,
        socket.create_connection(("127.0.0.1", sidecar.port)) as sock,
    ):
        sock.sendall(f"GET http://allowed.test:{port}/ HTTP/1.1\r\n".encode())
        assert ctx.options.http2_ping_keepalive == 0, "a PING a minute is too often for gRPC's servers"
        handlers: Any = ctx.master.addons.get("proxyserver")
        until(lambda: len(handlers.connections) == 1, "connection")
        (handler,) = handlers.connections.values()

        assert handler.idle_seconds == 3600


def test_a_silent_connection_is_ended_after_the_idle_time(scene: Scene) -> None:
    authority = f"allowed.test:{scene.port}"
    with secure(scene.idle, authority) as sock:
        scene.seen.release.clear()
        sock.sendall(get(authority, "/hold"))
        sock.settimeout(SECONDS)
        with suppress(ConnectionError):
            assert sock.recv(65_536) == b"", "no answer, but the end"
        scene.seen.release.set()

    failed = scene.idle.event("request_failed", path="/hold")
    assert failed["reason"] == "timeout"
    assert IDLE_SECONDS * 1000 * 0.9 <= failed["duration_ms"] < 10_000


def test_a_silent_connection_over_http_2_is_ended_as_well(scene: Scene) -> None:
    with (
        grpc(scene.root, _echo) as (port, _),
        secure(scene.idle, f"allowed.test:{port}", alpn=("h2",)) as sock,
    ):
        call = Call(Http2Client(sock), port, "Idle")
        sock.settimeout(SECONDS)
        call.send(b"one")
        assert call.next() == b"one"
        with suppress(ConnectionError):
            while call.client.read():
                pass

        assert scene.idle.event("request_failed", path="/echo.Echo/Idle")["reason"] == "timeout"


def test_a_connection_on_which_something_moves_is_not_idle(scene: Scene) -> None:
    with (
        grpc(scene.root, _echo) as (port, _),
        secure(scene.idle, f"allowed.test:{port}", alpn=("h2",)) as sock,
    ):
        call = Call(Http2Client(sock), port, "Busy")
        for _ in range(8):
            call.send(b"tick")
            assert call.next() == b"tick"
            threading.Event().wait(IDLE_SECONDS / 4)
        call.send(end=True)
        assert call.finish() == "0"

    line: Line = scene.idle.event("request_closed", path="/echo.Echo/Busy")
    assert line["duration_ms"] > IDLE_SECONDS * 1000
