"""Request lines and pseudo-headers with any bytes in them are judged as any other, or refused; never let by."""

import gc
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from mitmproxy.proxy.layers.http import HttpStream

from addons import gate, guard
from tests.live.inprocess import InProcess, in_process
from tests.live.sidecars import REQUEST_ENDS, SECONDS, until
from tests.live.upstreams import Root
from tests.live.wire import Http2Client, ask

pytestmark = pytest.mark.live

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@contextmanager
def recording(context: ssl.SSLContext, answer: bytes = OK) -> Iterator[tuple[int, bytearray]]:
    """An upstream that keeps the bytes that it gets, one connection after the other, and answers each head."""
    seen = bytearray()

    def serve(listener: socket.socket) -> None:
        while True:
            try:
                raw, _ = listener.accept()
                with context.wrap_socket(raw, server_side=True) as connection:
                    while data := connection.recv(65_536):
                        seen.extend(data)
                        connection.sendall(answer * data.count(b"\r\n\r\n"))
            except OSError:
                if listener.fileno() < 0:
                    return

    listener = socket.create_server(("127.0.0.1", 0))
    threading.Thread(target=serve, args=(listener,), daemon=True).start()
    try:
        yield listener.getsockname()[1], seen
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


@contextmanager
def sidecar_before(folder: Path, *, answer: bytes = OK) -> Iterator[tuple[InProcess, int, bytearray]]:
    root = Root(folder)
    with recording(root.context("up.test"), answer) as (port, seen):
        policy = f"""
version: 1
rules:
  - allow: ["up.test"]
    ports: [{port}]
    methods: [GET]
    paths: ["/ok/**"]
network: {{allow_addresses: [127.0.0.0/8]}}
"""
        with in_process(folder, policy, upstream_ca=root.pem, names=("up.test",), level="debug") as sidecar:
            yield sidecar, port, seen


def tunnel(sidecar: InProcess, authority: str, *alpn: str) -> ssl.SSLSocket:
    raw = socket.create_connection(("127.0.0.1", sidecar.port), SECONDS)
    answer = ask(raw, f"CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n\r\n".encode(), method="CONNECT")
    assert answer.status == 200
    context = ssl.create_default_context(cafile=str(sidecar.bundle))
    context.set_alpn_protocols(list(alpn) or ["http/1.1"])
    return context.wrap_socket(raw, server_hostname=authority.partition(":")[0])


def closed_once(sidecar: InProcess, reason: str) -> None:
    """Whatever it was, it was opened once and closed once, in words that can be read."""
    until(lambda: [e for e in sidecar.events() if e["event"] in REQUEST_ENDS], "end")
    opened = [e["request_id"] for e in sidecar.events("request_opened")]
    ends = [(e["request_id"], e["reason"]) for e in sidecar.events() if e["event"] in REQUEST_ENDS]
    assert ends == [(opened[0], reason)]
    assert not sidecar.events("internal_error")


@pytest.mark.parametrize(
    ("line", "host", "status", "reason"),
    [
        pytest.param(b"GET /no/\xff HTTP/1.1", "", 403, "default_deny", id="a path with a byte that is no UTF-8"),
        pytest.param(b"GET /ok/\xff HTTP/1.1", "denied.test", 421, "identity_mismatch", id="and another Host"),
        pytest.param(b"P\xff /no HTTP/1.1", "", 400, "malformed_request", id="a method with such a byte"),
        pytest.param(b"GE{T /ok/1 HTTP/1.1", "", 400, "malformed_request", id="a method that is no token"),
        pytest.param(b"G" * 33 + b" /ok/1 HTTP/1.1", "", 400, "malformed_request", id="a method without end"),
        pytest.param(b"GET /ok/\x00 HTTP/1.1", "", 400, "malformed_request", id="a NUL in the path"),
        pytest.param(b"GET /ok/\x7f\x01 HTTP/1.1", "", 400, "malformed_request", id="control characters in the path"),
        pytest.param(b"GET /ok/1 HTTP/2.0", "", 400, "malformed_request", id="HTTP/2.0 as a version of HTTP/1"),
        pytest.param(b"GET /ok/1 HTTP/9.9", "", 400, "malformed_request", id="a version that there isn't"),
    ],
)
def test_a_strange_request_line_is_refused(line: bytes, host: str, status: int, reason: str, tmp_path: Path) -> None:
    with sidecar_before(tmp_path) as (sidecar, port, seen):
        authority = f"up.test:{port}"
        with tunnel(sidecar, authority) as client:
            answer = ask(client, line + f"\r\nHost: {host or authority}\r\n\r\n".encode())

        assert answer.status == status
        assert answer.reason == reason
        closed_once(sidecar, reason)
        assert seen == b""


def test_a_path_with_any_bytes_is_forwarded_in_one_spelling_where_it_is_allowed(tmp_path: Path) -> None:
    with sidecar_before(tmp_path) as (sidecar, port, seen):
        with tunnel(sidecar, f"up.test:{port}") as client:
            answer = ask(client, f"GET /ok/ä HTTP/1.1\r\nHost: up.test:{port}\r\n\r\n".encode("latin-1"))

        assert answer.status == 200
        assert sidecar.event("request_closed")["path"] == "/ok/%E4"
        assert seen.startswith(b"GET /ok/%E4 HTTP/1.1\r\n")


def test_where_even_the_refusal_fails_nothing_goes_through(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError

    monkeypatch.setattr(gate, "judge_request", broken)
    monkeypatch.setattr(guard, "problem_response", broken)

    with sidecar_before(tmp_path) as (sidecar, port, seen):
        with tunnel(sidecar, f"up.test:{port}") as client:
            client.sendall(f"GET /ok/1 HTTP/1.1\r\nHost: up.test:{port}\r\n\r\n".encode())
            assert client.recv(65_536) == b""

        sidecar.event("request_denied")
        assert seen == b""


def test_a_request_without_host_is_forwarded_with_the_proven_one(tmp_path: Path) -> None:
    with sidecar_before(tmp_path) as (sidecar, port, seen):
        with tunnel(sidecar, f"up.test:{port}") as client:
            assert ask(client, b"GET /ok/1 HTTP/1.0\r\n\r\n").status == 200

        assert bytes(seen) == f"GET /ok/1 HTTP/1.0\r\nHost: up.test:{port}\r\n\r\n".encode()


@pytest.mark.parametrize("host", ["ｕp.test", "\u00a0up.test"])
def test_a_host_beyond_ascii_is_forwarded_as_it_was_judged(host: str, tmp_path: Path) -> None:
    with sidecar_before(tmp_path) as (sidecar, port, seen):
        with tunnel(sidecar, f"up.test:{port}") as client:
            assert ask(client, f"GET /ok/1 HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n".encode()).status == 200

        assert f"\r\nHost: up.test:{port}\r\n".lower().encode() in bytes(seen).lower()


@pytest.mark.parametrize("body", ["", "x"])
def test_an_upgrade_to_anything_but_websocket_is_not_asked_for(body: str, tmp_path: Path) -> None:
    head = (
        f"Content-Length: {len(body)}\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AA\r\n"
    )
    with sidecar_before(tmp_path) as (sidecar, port, seen):
        with tunnel(sidecar, f"up.test:{port}") as client:
            request = f"GET /ok/1 HTTP/1.1\r\nHost: up.test:{port}\r\n{head}\r\n{body}"
            assert ask(client, request.encode()).status == 200

        assert b"upgrade:" not in bytes(seen).lower()
        assert b"http2-settings:" not in bytes(seen).lower()


def test_an_upstreams_status_has_three_digits(tmp_path: Path) -> None:
    odd = b"HTTP/1.1 99999999999999999999999 X\r\nContent-Length: 2\r\n\r\nok"
    with sidecar_before(tmp_path, answer=odd) as (sidecar, port, _), tunnel(sidecar, f"up.test:{port}") as client:
        answer = ask(client, f"GET /ok/1 HTTP/1.1\r\nHost: up.test:{port}\r\n\r\n".encode())

        assert answer.reason == "upstream_protocol"
        closed_once(sidecar, "upstream_protocol")


def test_a_path_of_any_length_makes_a_short_event(tmp_path: Path) -> None:
    with sidecar_before(tmp_path) as (sidecar, port, seen):
        path = "/ok/" + "a" * 100_000
        with tunnel(sidecar, f"up.test:{port}") as client:
            assert ask(client, f"GET {path} HTTP/1.1\r\nHost: up.test:{port}\r\n\r\n".encode()).status == 200

        assert len(sidecar.event("request_closed")["path"]) == 4096
        assert path.encode() in seen


@pytest.mark.parametrize("path", ["/ok/1 x", "/ok/1 HTTP/1.1\tx", "/ok/\x7f"])
def test_an_http2_path_with_a_space_or_a_control_character_is_refused(path: str, tmp_path: Path) -> None:
    with sidecar_before(tmp_path) as (sidecar, _, seen):
        with tunnel(sidecar, "denied.test:443", "h2") as raw:
            answer = Http2Client(raw).ask("denied.test:443", path)

        assert answer is not None
        assert answer.reason == "malformed_request"
        assert seen == b""


def test_refused_http2_requests_leave_nothing_behind(tmp_path: Path) -> None:
    with sidecar_before(tmp_path) as (sidecar, _, _), tunnel(sidecar, "denied.test:443", "h2") as raw:
        client = Http2Client(raw)
        for _ in range(40):
            answer = client.ask("denied.test:443", method="CONNECT")
            assert answer is not None
            assert answer.status == 400

        gc.collect()
        assert sum(isinstance(thing, HttpStream) for thing in gc.get_objects()) < 10


def test_http2_that_is_broken_is_no_distrust_in_the_ca(tmp_path: Path) -> None:
    with sidecar_before(tmp_path) as (sidecar, _, _):
        with tunnel(sidecar, "denied.test:443", "h2") as raw:
            raw.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(9))  # DATA on stream 0
            while raw.recv(65_536):
                pass

        sidecar.event("connection_closed", host="denied.test")
        assert not sidecar.events("tls_handshake_failed")
