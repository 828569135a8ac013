"""Heads that are slow, endless or large, what is sent behind a request, and peers that stand still."""

import gzip
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import suppress

import pytest

from tests.live.limits.scenes import MIB, Scene, drain, scene_with, send, upstream
from tests.live.sidecars import SECONDS
from tests.live.wire import answer, ask, dial, get, goaway, secure

pytestmark = pytest.mark.live


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    limits = ("head_bytes=8192", "unread_bytes=32768", "interim_responses=4")
    more = ("stalled_seconds=0.5", "handshake_seconds=2", "discard_bytes=65536")
    with scene_with(tmp_path_factory.mktemp("heads"), *limits, *more) as scene:
        yield scene


@pytest.fixture(scope="module")
def hasty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """Where heads have to be quick: nobody else's connection, who may be slow for want of a processor."""
    with scene_with(tmp_path_factory.mktemp("hasty"), "head_seconds=2") as scene:
        yield scene


def test_a_client_that_never_finishes_its_first_head_is_closed(hasty: Scene) -> None:
    with hasty.bystander(), dial(hasty.sidecar) as sock:
        sock.sendall(b"GET http://up.test/slow HTTP/1.1\r\n")
        got = drain(sock)

    assert got == b"" or got.startswith(b"HTTP/1.1 408 ")
    connection = hasty.reached("head_seconds", reason="head_too_slow")["connection_id"]
    hasty.sidecar.event("connection_denied", connection_id=connection, reason="head_too_slow")


def test_a_client_that_never_finishes_its_head_inside_of_tls_reads_408(hasty: Scene) -> None:
    with hasty.bystander(), secure(hasty.sidecar, "denied.test:443") as sock:
        sock.sendall(b"GET /slow-inside HTTP/1.1\r\nX: ")
        got = answer(sock)
        assert drain(sock) == b""

    assert (got.status, got.reason) == (408, "head_too_slow")
    connection = hasty.reached("head_seconds", host="denied.test")["connection_id"]
    hasty.sidecar.event("connection_denied", connection_id=connection, reason="head_too_slow")


def test_a_later_head_of_a_connection_is_held_to_the_same_time(hasty: Scene) -> None:
    with hasty.bystander(), secure(hasty.sidecar, hasty.authority) as sock:
        assert ask(sock, get(hasty.authority, "/first-of-two")).status == 200
        connection = hasty.sidecar.event("request_closed", path="/first-of-two")["connection_id"]
        sock.sendall(b"GET /second")
        got = answer(sock)

    assert (got.status, got.reason) == (408, "head_too_slow")
    hasty.reached("head_seconds", connection_id=connection)


def test_bytes_that_trickle_in_win_no_time(hasty: Scene) -> None:
    began = time.monotonic()
    with secure(hasty.sidecar, hasty.authority) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nX: ")
        sock.settimeout(0.05)
        while time.monotonic() < began + SECONDS:
            try:
                send(sock, b"x")
                if (got := sock.recv(65_536)) or not got:
                    break
            except TimeoutError:
                continue

    assert got.startswith(b"HTTP/1.1 408 ")


def test_a_head_in_pieces_is_in_time_and_its_watch_forgotten(hasty: Scene) -> None:
    with dial(hasty.sidecar) as sock:  # the tunnel's own head in pieces, too
        connect = f"CONNECT {hasty.authority} HTTP/1.1\r\nHost: {hasty.authority}\r\n\r\n".encode()
        for piece in (connect[:20], connect[20:]):
            sock.sendall(piece)
            time.sleep(0.05)
        assert answer(sock, method="CONNECT").status == 200
        context = ssl.create_default_context(cafile=str(hasty.sidecar.trust / "bundle.pem"))
        with context.wrap_socket(sock, server_hostname="up.test") as secured:
            request = get(hasty.authority, "/in-pieces")
            for round_ in range(3):  # 2.4 s in all, longer than one head may take
                secured.sendall(request[:10])
                time.sleep(0.8)
                assert ask(secured, request[10:]).status == 200, round_


def test_a_slow_http2_head_ends_its_connection(hasty: Scene) -> None:
    client = hasty.http2()
    with hasty.bystander(), client.sock as sock:
        sock.sendall(b"\x00\x00\x01" + b"\x01" + b"\x00" + b"\x00\x00\x00\x01" + b"\x82")  # HEADERS without END_HEADERS
        got = drain(sock)

    assert goaway(got) == 11
    hasty.reached("head_seconds", detail="the head of a request was not whole within 2 s")


@pytest.mark.parametrize("pieces", [1, 100], ids=["at once", "in pieces"])
def test_a_head_that_is_too_large_reads_431(scene: Scene, pieces: int) -> None:
    head = get("denied.test", "/large", "X: " + "x" * 9000)
    with scene.bystander(), secure(scene.sidecar, "denied.test:443") as sock:
        size = len(head) // pieces
        for at in range(0, len(head) if pieces == 1 else len(head) - size, size):
            send(sock, head[at : at + size])
        got = answer(sock)

    assert (got.status, got.reason) == (431, "head_too_large")
    scene.reached("head_bytes", host="denied.test", reason="head_too_large")


def test_a_head_that_fits_passes(scene: Scene) -> None:
    with secure(scene.sidecar, scene.authority) as sock:
        assert ask(sock, get(scene.authority, "/fits", "X: " + "x" * 7500)).status == 200


def test_a_client_that_floods_behind_its_request_is_ended(scene: Scene) -> None:
    scene.seen.release.clear()
    with scene.bystander(), scene.flat(), secure(scene.sidecar, scene.authority) as sock:
        sock.sendall(get(scene.authority, "/hold"))
        scene.sidecar.event("request_allowed", path="/hold")
        send(sock, b"x" * (4 * MIB))
        drain(sock)
        scene.seen.release.set()

    scene.reached("unread_bytes", reason="flood")
    scene.sidecar.event("request_failed", path="/hold", reason="flood")


@pytest.mark.parametrize(
    ("said", "limit"),
    [
        pytest.param(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 20_000, "head_bytes", id="a head without end"),
        pytest.param(b"HTTP/1.1 103 Early Hints\r\n\r\n" * 20, "interim_responses", id="interim responses without end"),
        pytest.param(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;" + b"x" * 100_000, "unread_bytes",
            id="a chunk's line without end",
        ),
    ],
)  # fmt: skip
def test_an_upstream_beyond_a_limit_fails_its_request_alone(scene: Scene, said: bytes, limit: str) -> None:
    context = scene.root.context("up.test")

    def talk(sock: socket.socket) -> None:
        with context.wrap_socket(sock, server_side=True) as secured:
            secured.recv(65_536)
            send(secured, said)
            drain(secured)

    with upstream(talk) as port, scene.bystander(), secure(scene.sidecar, f"up.test:{port}") as sock:
        sock.sendall(get(f"up.test:{port}", f"/beyond/{limit}"))
        got = drain(sock)

    assert b"HTTP/1.1 502 " in got or limit == "unread_bytes"  # the answer had begun
    scene.reached(limit, host="up.test")
    scene.sidecar.event("request_failed", path=f"/beyond/{limit}", reason="upstream_protocol")


def silent(sock: socket.socket) -> None:
    drain(sock)


def test_an_upstream_that_does_not_shake_hands_is_given_up(scene: Scene) -> None:
    with (
        upstream(silent) as port,
        scene.bystander(),
        secure(scene.sidecar, f"up.test:{port}") as sock,
    ):
        got = ask(sock, get(f"up.test:{port}", "/no-handshake"))

    assert (got.status, got.reason) == (504, "timeout")
    scene.reached("handshake_seconds", host="up.test")
    scene.sidecar.event("request_failed", path="/no-handshake", reason="timeout")


def test_a_client_that_stops_reading_is_ended_and_what_waits_for_it_is_little(scene: Scene) -> None:
    path = f"/bytes/{256 * MIB}"
    with scene.bystander(), scene.flat(), secure(scene.sidecar, scene.authority) as sock:
        sock.sendall(get(scene.authority, path))
        scene.sidecar.event("request_failed", path=path, reason="timeout")

    scene.reached("stalled_seconds", reason="timeout")
    assert scene.seen.sent_bytes < 64 * MIB


def test_a_slow_writer_disturbs_nobody(scene: Scene) -> None:
    body = b"x" * 20
    with scene.bystander(), secure(scene.sidecar, scene.authority) as sock:
        sock.sendall(get(scene.authority, "/slow-body", f"Content-Length: {len(body)}", method="POST"))
        for byte in body:
            sock.sendall(bytes([byte]))
            time.sleep(0.03)  # 0.6 s in all: a body has no least rate
        assert answer(sock).status == 200


def test_an_upstream_that_never_ends_makes_the_sidecar_keep_nothing(scene: Scene) -> None:
    context, piece = scene.root.context("up.test"), b"10000\r\n" + b"x" * 65_536 + b"\r\n"

    def talk(sock: socket.socket) -> None:
        with context.wrap_socket(sock, server_side=True) as secured:
            secured.recv(65_536)
            secured.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            while True:
                secured.sendall(piece)

    with (
        upstream(talk) as port,
        scene.bystander(),
        scene.flat(),
        secure(scene.sidecar, f"up.test:{port}") as sock,
    ):
        sock.sendall(get(f"up.test:{port}", "/never-ending"))
        got = 0
        while got < 32 * MIB:
            got += len(sock.recv(1 << 20))

    scene.sidecar.event("request_failed", path="/never-ending", reason="client_disconnected")


def test_a_bomb_is_not_unpacked(scene: Scene) -> None:
    bomb = gzip.compress(bytes(200 * MIB), 9, mtime=0)  # 200 kB on the wire
    context = scene.root.context("up.test")
    head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(bomb)

    def talk(sock: socket.socket) -> None:
        with context.wrap_socket(sock, server_side=True) as secured:
            secured.recv(65_536)
            secured.sendall(head + bomb)

    with upstream(talk) as port, scene.flat(), secure(scene.sidecar, f"up.test:{port}") as sock:
        got = ask(sock, get(f"up.test:{port}", "/bomb", "Accept-Encoding: gzip"))

    assert got.body == bomb


@pytest.mark.parametrize("size", ["FFFFFFFFFFFFFFFF", "1" + "0" * 30, "FFFFFFFF"])
def test_a_huge_chunk_is_refused_or_streamed(scene: Scene, size: str) -> None:
    head = get(scene.authority, f"/chunk/{len(size)}", "Transfer-Encoding: chunked", method="POST")
    with scene.bystander(), scene.flat(), secure(scene.sidecar, scene.authority) as sock:
        send(sock, head + size.encode() + b"\r\n" + b"x" * (4 * MIB))
        with suppress(OSError):
            sock.shutdown(socket.SHUT_WR)
        drain(sock)

    assert scene.sidecar.event("request_failed", path=f"/chunk/{len(size)}")


def test_tiny_chunks_in_great_number_disturb_nobody(scene: Scene) -> None:
    chunks = 200_000
    head = get(scene.authority, "/tiny", "Transfer-Encoding: chunked", method="POST")
    before = scene.seen.body_bytes
    with scene.bystander(), secure(scene.sidecar, scene.authority) as sock:
        sock.sendall(head + b"1\r\nx\r\n" * chunks + b"0\r\n\r\n")
        assert answer(sock).status == 200

    assert scene.seen.body_bytes - before == chunks
