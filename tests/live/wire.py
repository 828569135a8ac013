"""Clients that say exactly what they are told: bytes through the proxy, TLS with a chosen SNI, HTTP/2 streams."""

import http.client
import io
import json
import os
import socket
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import h2.config
import h2.connection
import h2.events
import h2.settings

from tests.live.sidecars import SECONDS


class Proxy(Protocol):
    """A running sidecar, a process or in this one: where it listens, and what its clients trust."""

    @property
    def port(self) -> int: ...
    @property
    def trust(self) -> Path: ...


def environment(*, proxy: str | None = None, **more: str) -> dict[str, str]:
    """An environment for a client: ours without proxies and without anything that says whom to trust."""
    kept = {key: os.environ[key] for key in ("PATH", "HOME", "TMPDIR", "LANG") if key in os.environ}
    proxies = {} if proxy is None else dict.fromkeys(("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy"), proxy)
    return kept | proxies | more


@dataclass(frozen=True)
class Answer:
    """A whole response."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def problem(self) -> dict[str, Any]:
        assert self.headers["content-type"] == "application/problem+json", self
        document: dict[str, Any] = json.loads(self.body)
        assert document["status"] == self.status
        return document

    @property
    def reason(self) -> str | None:
        """Why the sidecar refused; None if it's the upstream's answer."""
        return self.problem["reason"] if "problem" in self.headers.get("content-type", "") else None


def dial(sidecar: Proxy) -> socket.socket:
    return socket.create_connection(("127.0.0.1", sidecar.port), SECONDS)


def tunnel(sidecar: Proxy, authority: str, *headers: str) -> socket.socket:
    """A CONNECT that was answered with 200; *headers* are lines, by default a Host that says the same."""
    sock = dial(sidecar)
    lines = (f"CONNECT {authority} HTTP/1.1", *(headers or (f"Host: {authority}",)))
    answer = ask(sock, "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n", method="CONNECT")
    assert answer.status == 200, answer
    return sock


def trusting(sidecar: Proxy | None, *alpn: str) -> ssl.SSLContext:
    """A client's context that trusts the session's bundle; without a sidecar, nobody."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if sidecar is not None:
        context.load_verify_locations(sidecar.trust / "bundle.pem")
    if alpn:
        context.set_alpn_protocols(list(alpn))
    return context


def secure(
    sidecar: Proxy, authority: str, *connect_headers: str, sni: str = "", alpn: Sequence[str] = ()
) -> ssl.SSLSocket:
    """A tunnel with TLS in it; the SNI is the authority's name unless told otherwise."""
    name = sni or authority.rpartition(":")[0].strip("[]")
    sock = tunnel(sidecar, authority, *connect_headers)
    return trusting(sidecar, *alpn).wrap_socket(sock, server_hostname=name)


def ask(sock: socket.socket, request: bytes, *, method: str = "GET") -> Answer:
    """Send *request* as it is; read one response. The connection stays open if the peer leaves it so."""
    sock.sendall(request)
    return answer(sock, method=method)


class _Unbuffered:
    """A socket's reading side that takes no byte more than it's asked for."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    def makefile(self, mode: Literal["rb"]) -> io.RawIOBase:
        return self._sock.makefile(mode, buffering=0)


def answer(sock: socket.socket, *, method: str = "GET") -> Answer:
    # What follows a CONNECT's answer, maybe in the same segment, belongs to who reads the tunnel.
    tunnels: Any = _Unbuffered(sock) if method == "CONNECT" else sock
    response = http.client.HTTPResponse(tunnels, method=method)
    response.begin()
    if method == "CONNECT" and response.status != 200:
        response.fp = io.BufferedReader(response.fp)
    body = b"" if method == "CONNECT" and response.status == 200 else response.read()
    return Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, body)


def get(host: str, path: str = "/", *headers: str, method: str = "GET") -> bytes:
    return "\r\n".join((f"{method} {path} HTTP/1.1", f"Host: {host}", *headers)).encode("latin-1") + b"\r\n\r\n"


class Http2Client:
    """HTTP/2 over a connected TLS socket, one exchange after the other; checks nothing of what it sends."""

    def __init__(self, sock: ssl.SSLSocket) -> None:
        assert sock.selected_alpn_protocol() == "h2"
        self.sock = sock
        configuration = h2.config.H2Configuration(
            client_side=True, header_encoding="utf-8", validate_outbound_headers=False, normalize_outbound_headers=False
        )
        self.h2 = h2.connection.H2Connection(configuration)
        self.h2.initiate_connection()
        self.flush()

    def flush(self) -> None:
        self.sock.sendall(self.h2.data_to_send())

    def open(
        self, authority: str, path: str = "/", *headers: tuple[str, str], method: str = "GET", end: bool = True
    ) -> int:
        """Send a request's head; gives the stream."""
        stream = self.h2.get_next_available_stream_id()
        head = [(":method", method), (":scheme", "https"), (":path", path)]
        head += [(":authority", authority)] if authority else []
        self.h2.send_headers(stream, [*head, *headers], end_stream=end)
        self.flush()
        return stream

    def read(self) -> list[Any]:
        """The next events; none at the connection's end."""
        events: list[h2.events.Event] = []
        while not events and (data := self.sock.recv(65_536)):  # part of a frame is no event
            events = self.h2.receive_data(data)
        for event in events:
            if isinstance(event, h2.events.DataReceived):
                assert event.flow_controlled_length is not None and event.stream_id is not None
                self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        self.flush()
        return list(events)

    def finish(self, stream: int) -> Answer | None:
        """The whole response; None if the stream was reset or the connection ended before it."""
        status, headers, body = 0, dict[str, str](), b""
        while events := self.read():
            for event in events:
                match event:
                    case h2.events.ResponseReceived(stream_id=s) if s == stream:
                        headers = {str(k): str(v) for k, v in event.headers or ()}
                        status = int(headers[":status"])
                    case h2.events.DataReceived(stream_id=s) if s == stream:
                        body += event.data or b""
                    case h2.events.StreamEnded(stream_id=s) if s == stream:
                        return Answer(status, headers, body)
                    case h2.events.StreamReset(stream_id=s) if s == stream:
                        return None
                    case h2.events.ConnectionTerminated():
                        return None
        return None

    def ask(self, authority: str, path: str = "/", *headers: tuple[str, str], method: str = "GET") -> Answer | None:
        return self.finish(self.open(authority, path, *headers, method=method))


def goaway(data: bytes) -> int | None:
    """The error code of the last GOAWAY in a stream of whole frames (RFC 9113, section 6.8); None without one."""
    code = None
    while len(data) >= 9:
        size, kind = int.from_bytes(data[:3]), data[3]
        if kind == 7:
            code = int.from_bytes(data[13:17])
        data = data[9 + size :]
    return code
