"""HTTPS upstreams on loopback, under a private root: HTTP/1.1 and WebSocket by aiohttp, HTTP/2 by the h2 library."""

import asyncio
import ssl
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import h2.config
import h2.connection
import h2.events
from aiohttp import WSMsgType, web
from cryptography.hazmat.primitives import serialization

from sidecar.hosts import parse_host
from sidecar.pki.leaf import LeafMinter
from sidecar.pki.session_ca import SessionCa, issue_session_ca

CHUNK = b"\0" * 65_536


class Root:
    """A private root, and server contexts for names under it."""

    def __init__(self, folder: Path, *, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self.ca: SessionCa = issue_session_ca(common_name="upstream root", now=now(), validity=timedelta(days=30))
        self.minter = LeafMinter(self.ca, now)
        self.pem = folder / "upstream-root.pem"
        self.pem.write_bytes(self.ca.root_pem())
        self.connections = 0

    def context(self, *names: str, alpn: tuple[str, ...] = ("http/1.1",)) -> ssl.SSLContext:
        """A server's context that answers each of *names* by SNI, the first of them without; counts handshakes."""
        contexts = {name: self._one(name, alpn) for name in names}

        def choose(sock: ssl.SSLObject, sni: str | None, _: ssl.SSLContext) -> None:
            self.connections += 1
            if sni in contexts:
                sock.context = contexts[sni]

        first = contexts[names[0]]
        first.sni_callback = choose
        return first

    def server_pem(self, name: str) -> bytes:
        """A server's key and leaf, for programs that want a file."""
        key = self.minter.key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return key + self.minter.mint(parse_host(name)).public_bytes(serialization.Encoding.PEM)

    def _one(self, name: str, alpn: tuple[str, ...]) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.set_alpn_protocols(list(alpn))
        with tempfile.NamedTemporaryFile() as file:
            file.write(self.server_pem(name))
            file.flush()
            context.load_cert_chain(file.name)
        return context


class Seen:
    """What an upstream has received."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, str, dict[str, str]]] = []  # method, path with query, headers
        self.body_bytes = 0
        self.sent_bytes = 0  # of /bytes/N
        self.release = threading.Event()  # lets /hold and /events go on


def application(seen: Seen) -> web.Application:
    """
    Paths: /bytes/N streams, /events sends server-sent events, /hold waits, /drop hangs up, /ws echoes, /repo.git is
    an empty repository for ``git ls-remote``; all others say hello and count the body.
    """

    async def note(request: web.Request) -> None:
        seen.requests.append((request.method, request.path_qs, dict(request.headers)))

    async def hello(request: web.Request) -> web.StreamResponse:
        await note(request)
        async for chunk in request.content.iter_any():
            seen.body_bytes += len(chunk)
        return web.Response(text=f"hello from {request.host}\n", headers={"Alt-Svc": 'h3=":443"'})

    async def stream(request: web.Request) -> web.StreamResponse:
        await note(request)
        left = int(request.match_info["size"])
        response = web.StreamResponse(headers={"Content-Length": str(left)})
        await response.prepare(request)
        while left:
            piece = CHUNK[: min(left, len(CHUNK))]
            await response.write(piece)
            left -= len(piece)
            seen.sent_bytes += len(piece)
        return response

    async def wait() -> None:
        await asyncio.get_running_loop().run_in_executor(None, seen.release.wait, 30)

    async def events(request: web.Request) -> web.StreamResponse:
        await note(request)
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await response.write(b"data: first\n\n")
        await wait()  # the second is sent only when the test has seen the first
        await response.write(b"data: second\n\n")
        return response

    async def hold(request: web.Request) -> web.StreamResponse:
        await note(request)
        await wait()
        return web.Response(text="released\n")

    async def drop(request: web.Request) -> web.StreamResponse:
        await note(request)
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    async def repository(request: web.Request) -> web.StreamResponse:
        await note(request)
        head = b"# service=git-upload-pack\n"
        none = b"0" * 40 + b" capabilities^{}\0agent=test\n"
        body = b"".join((b"%04x" % (len(head) + 4), head, b"0000", b"%04x" % (len(none) + 4), none, b"0000"))
        return web.Response(body=body, content_type="application/x-git-upload-pack-advertisement")

    async def websocket(request: web.Request) -> web.StreamResponse:
        await note(request)
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        async for message in socket:
            if message.type is WSMsgType.TEXT:
                await socket.send_str(message.data)
        return socket

    app = web.Application(client_max_size=1 << 40)
    app.router.add_get("/bytes/{size}", stream)
    app.router.add_get("/events", events)
    app.router.add_get("/hold", hold)
    app.router.add_get("/drop", drop)
    app.router.add_get("/ws", websocket)
    app.router.add_get("/repo.git/info/refs", repository)
    app.router.add_route("*", "/{path:.*}", hello)
    return app


class Http2(asyncio.Protocol):
    """
    An HTTP/2 server: answers each stream when it ends; /bytes/N with that many, respecting flow control; /events and
    /drop as the other one does.
    """

    def __init__(self, seen: Seen) -> None:
        self._seen = seen
        self._h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False, header_encoding="utf-8"))
        self._paths: dict[int, str] = {}
        self._left: dict[int, int] = {}

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: Any = transport
        self._h2.initiate_connection()
        transport.write(self._h2.data_to_send())  # type: ignore[attr-defined]

    def data_received(self, data: bytes) -> None:
        events = self._h2.receive_data(data)
        reset = {event.stream_id for event in events if isinstance(event, h2.events.StreamReset)}
        for event in events:
            match event:
                case h2.events.RequestReceived():
                    headers = {str(name): str(value) for name, value in event.headers or ()}
                    self._paths[event.stream_id or 0] = headers[":path"].partition("?")[0]
                    self._seen.requests.append((headers[":method"], headers[":path"], headers))
                case h2.events.DataReceived():
                    self._seen.body_bytes += len(event.data or b"")
                    self._h2.acknowledge_received_data(event.flow_controlled_length or 0, event.stream_id or 0)
                case h2.events.StreamEnded() if event.stream_id not in reset:
                    self._answer(event.stream_id or 0)
                case h2.events.StreamReset():
                    self._left.pop(event.stream_id or 0, None)
                    self._paths.pop(event.stream_id or 0, None)
                case h2.events.WindowUpdated():
                    pass
        self._pump()

    def _answer(self, stream: int) -> None:
        path = self._paths[stream]
        if path == "/drop":
            self._transport.abort()
            return
        if path == "/events":
            self._h2.send_headers(stream, [(":status", "200"), ("content-type", "text/event-stream")])
            self._h2.send_data(stream, b"data: first\n\n")
            loop = asyncio.get_running_loop()
            loop.run_in_executor(None, self._seen.release.wait, 30).add_done_callback(
                lambda _: self._second_event(stream)
            )
            return
        size = int(path.removeprefix("/bytes/")) if path.startswith("/bytes/") else 6
        self._h2.send_headers(stream, [(":status", "200"), ("content-length", str(size))])
        self._left[stream] = size

    def _second_event(self, stream: int) -> None:
        if stream not in self._paths:
            return  # reset meanwhile
        self._h2.send_data(stream, b"data: second\n\n", end_stream=True)
        self._transport.write(self._h2.data_to_send())

    def _pump(self) -> None:
        for stream in list(self._left):
            while self._left[stream]:
                window = min(self._h2.local_flow_control_window(stream), self._h2.max_outbound_frame_size)
                if window <= 0:
                    break
                size = min(window, self._left[stream])
                self._h2.send_data(stream, b"x" * size)
                self._left[stream] -= size
            if not self._left[stream]:
                self._h2.end_stream(stream)
                del self._left[stream]
        self._transport.write(self._h2.data_to_send())


@contextmanager
def serving(
    context: ssl.SSLContext | None, *, host: str = "127.0.0.1", http2: bool = False
) -> Iterator[tuple[int, Seen]]:
    """Serve on a free port of *host* from a thread; gives the port and what was received."""
    seen = Seen()
    started = threading.Event()
    port = 0
    loop = asyncio.new_event_loop()
    stop = asyncio.Event()

    async def main() -> None:
        nonlocal port
        if http2:
            server = await loop.create_server(lambda: Http2(seen), host, 0, ssl=context)
            port = server.sockets[0].getsockname()[1]
            started.set()
            await stop.wait()
            server.close()
        else:
            runner = web.AppRunner(application(seen), shutdown_timeout=0.1, handler_cancellation=True)
            await runner.setup()
            site = web.TCPSite(runner, host, 0, ssl_context=context)
            await site.start()
            port = runner.addresses[0][1]
            started.set()
            await stop.wait()
            seen.release.set()
            await runner.cleanup()

    thread = threading.Thread(target=loop.run_until_complete, args=(main(),), daemon=True)
    thread.start()
    assert started.wait(10)
    try:
        yield port, seen
    finally:
        seen.release.set()
        loop.call_soon_threadsafe(stop.set)
        thread.join(10)
