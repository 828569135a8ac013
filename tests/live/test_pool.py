"""An upstream connection that a client has left serves the next client of the same destination, and nobody else."""

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from sidecar.limits import Limits
from sidecar.policy import parse_policy
from sidecar.upstreams.files import load_upstreams
from tests.live.inprocess import InProcess, in_process
from tests.live.sidecars import until
from tests.live.test_upstream_tls import POLICY, tls
from tests.live.upstreams import Root

pytestmark = pytest.mark.live

NAMES = ("a.test", "b.test")
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
ANSWERS = {
    "/": OK,
    "/close": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok",
    "/old": b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
    "/more": OK + b"HTTP/1.1 200 OK\r\n",
    "/switch": b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n",
    "/part": b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nok",
    "/bye": OK,
    "/gone": OK,  # but for a connection that has been used: it ends
}


class Upstream:
    """Keeps its connections open, but after ``/bye``; gives each path's bytes as they are."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.paths: list[list[str]] = []  # by connection
        self.ended = 0  # connections that the other side has closed, or we have

    def serve(self, connection: ssl.SSLSocket, paths: list[str]) -> None:
        connection.settimeout(300)  # longer than a test waits for an end
        with suppress(OSError), connection:
            while data := connection.recv(65536):
                paths.append(path := data.split(b" ")[1].decode())
                if path == "/never" or (path == "/gone" and len(paths) > 1):
                    break
                connection.sendall(ANSWERS[path])
                if path == "/bye":
                    break
        self.ended += 1


@contextmanager
def keeping(context: ssl.SSLContext) -> Iterator[Upstream]:
    listener = socket.create_server(("127.0.0.1", 0))
    upstream = Upstream(listener.getsockname()[1])

    def accept() -> None:
        while True:
            try:
                accepted, _ = listener.accept()
            except OSError:
                return
            with suppress(OSError):
                connection = context.wrap_socket(accepted, server_side=True)
                upstream.paths.append([])
                threading.Thread(target=upstream.serve, args=(connection, upstream.paths[-1]), daemon=True).start()

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    try:
        yield upstream
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(20)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Root:
    return Root(tmp_path_factory.mktemp("root"))


@contextmanager
def scene(root: Root, folder: Path, **limits: float) -> Iterator[tuple[InProcess, Upstream]]:
    all_limits = Limits(**({"upstream_pool_seconds": 600} | limits))  # type: ignore[arg-type]
    with (
        keeping(root.context(*NAMES)) as upstream,
        in_process(folder, POLICY, upstream_ca=root.pem, names=NAMES, limits=all_limits) as sidecar,
    ):
        yield sidecar, upstream


def ask(
    sidecar: InProcess, upstream: Upstream, host: str, path: str = "/", more: str = "", method: str = "GET"
) -> bytes:
    """What a client of its own reads first, after which it leaves, and the sidecar has noticed."""
    ended = len(sidecar.session.ledger)
    context = ssl.create_default_context(cafile=str(sidecar.bundle))
    with tls(sidecar, upstream.port, host, context) as connection:
        connection.sendall(f"{method} {path} HTTP/1.1\r\nHost: {host}:{upstream.port}\r\n{more}\r\n".encode())
        data = b""
        while b"ok" not in data and b" 101 " not in data and b"}" not in data and (piece := connection.recv(65536)):
            data += piece
    until(lambda: len(sidecar.session.ledger) <= ended or None, "end of the client")
    return data


def ended_upstreams(upstream: Upstream, number: int) -> None:
    until(lambda: upstream.ended == number or None, f"end of {number} upstream connection(s)")


def parked(sidecar: InProcess, number: int) -> None:
    until(lambda: len(sidecar.session.pool) == number or None, f"{number} in the pool")


def test_the_next_client_of_the_same_destination_gets_it(root: Root, tmp_path: Path) -> None:
    with scene(root, tmp_path) as (sidecar, upstream):
        for _ in range(3):
            assert b" 200 OK" in ask(sidecar, upstream, "a.test")
            parked(sidecar, 1)

        assert upstream.paths == [["/", "/", "/"]]
        ends = until(lambda: found if len(found := sidecar.events("request_closed")) == 3 else None, "three ends")
        assert {end["upstream_address"] for end in ends} == {f"127.0.0.1:{upstream.port}"}


@pytest.mark.parametrize("path", ["/close", "/old", "/more", "/switch", "/part"])
def test_what_cannot_go_on_is_closed(root: Root, tmp_path: Path, path: str) -> None:
    upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    upgrade += "Sec-WebSocket-Version: 13\r\n"
    with scene(root, tmp_path) as (sidecar, upstream):
        ask(sidecar, upstream, "a.test", path, upgrade if path == "/switch" else "")
        until(lambda: upstream.ended == 1 or None, "end of the upstream connection")

        assert ask(sidecar, upstream, "a.test").endswith(b"\r\n\r\nok")
        assert upstream.paths == [[path], ["/"]]


def test_a_request_that_closes_or_whose_connection_is_somebodys_ends_it(root: Root, tmp_path: Path) -> None:
    with scene(root, tmp_path) as (sidecar, upstream):
        for number, header in enumerate(("Connection: close\r\n", "Authorization: Negotiate YII=\r\n")):
            ask(sidecar, upstream, "a.test", "/", header)
            ended_upstreams(upstream, number + 1)

        assert upstream.paths == [["/"], ["/"]]


def test_another_name_gets_one_of_its_own(root: Root, tmp_path: Path) -> None:
    with scene(root, tmp_path) as (sidecar, upstream):
        ask(sidecar, upstream, "a.test")
        parked(sidecar, 1)
        ask(sidecar, upstream, "b.test", "/close")

        assert upstream.paths == [["/"], ["/close"]]


def anew(sidecar: InProcess, policy: str) -> Callable[[], object]:
    session = sidecar.session
    parsed = parse_policy(policy, session.policy().source)
    upstreams = load_upstreams(parsed, session.upstreams.root_files)
    return lambda: session.put_in_force(parsed, upstreams)


def test_a_reload_closes_what_waits_and_what_is_in_use_does_not_come_back(root: Root, tmp_path: Path) -> None:
    with scene(root, tmp_path) as (sidecar, upstream):
        ask(sidecar, upstream, "a.test")
        parked(sidecar, 1)
        sidecar.call(anew(sidecar, POLICY))
        until(lambda: upstream.ended == 1 or None, "end of what waited")

        context = ssl.create_default_context(cafile=str(sidecar.bundle))
        with tls(sidecar, upstream.port, "a.test", context) as connection:
            connection.sendall(f"GET / HTTP/1.1\r\nHost: a.test:{upstream.port}\r\n\r\n".encode())
            assert b" 200 OK" in connection.recv(65536)
            sidecar.call(anew(sidecar, POLICY))
        until(lambda: upstream.ended == 2 or None, "end of what was in use")

        ask(sidecar, upstream, "a.test")
        assert upstream.paths == [["/"], ["/"], ["/"]]


def test_a_name_is_judged_before_it_is_used_again(root: Root, tmp_path: Path) -> None:
    with scene(root, tmp_path) as (sidecar, upstream):
        ask(sidecar, upstream, "a.test")
        parked(sidecar, 1)
        pool, session = sidecar.session.pool, sidecar.session
        denied = parse_policy(POLICY.replace("default: allow", "default: deny"), session.policy().source)
        sidecar.call(lambda: session.policy.swap(denied))  # the pool isn't told

        context = ssl.create_default_context(cafile=str(sidecar.bundle))
        with tls(sidecar, upstream.port, "a.test", context) as connection:
            connection.sendall(f"GET / HTTP/1.1\r\nHost: a.test:{upstream.port}\r\n\r\n".encode())
            assert b" 403 " in connection.recv(65536)
        assert len(pool) == 1
        assert upstream.paths == [["/"]]


def test_its_address_must_be_one_that_the_guard_allows_now(root: Root, tmp_path: Path) -> None:
    with scene(root, tmp_path) as (sidecar, upstream):
        ask(sidecar, upstream, "a.test")
        parked(sidecar, 1)
        session = sidecar.session
        guarded = parse_policy(POLICY.replace("[127.0.0.0/8]", "[]"), session.policy().source)
        sidecar.call(lambda: session.policy.swap(guarded))

        context = ssl.create_default_context(cafile=str(sidecar.bundle))
        with tls(sidecar, upstream.port, "a.test", context) as connection:
            connection.sendall(f"GET / HTTP/1.1\r\nHost: a.test:{upstream.port}\r\n\r\n".encode())
            assert b" 403 " in connection.recv(65536)
        until(lambda: sidecar.events(reason="private_address") or None, "record of the address")
        assert upstream.paths == [["/"]]


def test_one_that_its_upstream_has_closed_is_not_used(root: Root, tmp_path: Path) -> None:
    with scene(root, tmp_path) as (sidecar, upstream):
        ask(sidecar, upstream, "a.test", "/bye")
        until(lambda: upstream.ended == 1 or None, "end of the upstream connection")
        parked(sidecar, 0)

        assert b" 200 OK" in ask(sidecar, upstream, "a.test")
        assert upstream.paths == [["/bye"], ["/"]]


@pytest.mark.parametrize(
    "limits",
    [pytest.param({"upstream_pool": 0}, id="a pool of none"), pytest.param({"upstream_pool_seconds": 0.1}, id="time")],
)
def test_the_pool_is_bounded(root: Root, tmp_path: Path, limits: dict[str, float]) -> None:
    with scene(root, tmp_path, **limits) as (sidecar, upstream):
        ask(sidecar, upstream, "a.test")
        until(lambda: upstream.ended == 1 or None, "end of the upstream connection")

        ask(sidecar, upstream, "a.test")
        assert upstream.paths == [["/"], ["/"]]


def test_the_one_that_has_waited_longest_makes_room(root: Root, tmp_path: Path) -> None:
    with scene(root, tmp_path, upstream_pool=1) as (sidecar, upstream):
        ask(sidecar, upstream, "a.test")
        ask(sidecar, upstream, "b.test")
        until(lambda: upstream.ended == 1 or None, "end of the first")

        ask(sidecar, upstream, "b.test")
        assert upstream.paths == [["/"], ["/", "/"]]
        assert len(sidecar.session.pool) <= 1


def test_a_request_that_meets_the_end_of_a_pooled_connection_goes_out_on_another(root: Root, tmp_path: Path) -> None:
    with scene(root, tmp_path) as (sidecar, upstream):
        ask(sidecar, upstream, "a.test")
        parked(sidecar, 1)

        assert b" 200 OK" in ask(sidecar, upstream, "a.test", "/gone")

    assert upstream.paths == [["/", "/gone"], ["/gone"]]


def test_so_does_one_on_the_connection_that_its_own_client_has_used(root: Root, tmp_path: Path) -> None:
    with scene(root, tmp_path, upstream_pool=0) as (sidecar, upstream):
        context = ssl.create_default_context(cafile=str(sidecar.bundle))
        with tls(sidecar, upstream.port, "a.test", context) as connection:
            for path in ("/", "/gone"):
                connection.sendall(f"GET {path} HTTP/1.1\r\nHost: a.test:{upstream.port}\r\n\r\n".encode())
                data = b""
                while not data.endswith(b"ok") and (piece := connection.recv(65536)):
                    data += piece
                assert data.startswith(b"HTTP/1.1 200 OK")

    assert upstream.paths == [["/", "/gone"], ["/gone"]]


@pytest.mark.parametrize(
    ("method", "path", "came"),
    [
        pytest.param("POST", "/gone", [["/", "/gone"]], id="one that may have had an effect is not repeated"),
        pytest.param("GET", "/never", [["/", "/never"], ["/never"]], id="it is repeated once"),
    ],
)
def test_what_ends_all_the_same_is_a_failure(
    root: Root, tmp_path: Path, method: str, path: str, came: list[list[str]]
) -> None:
    with scene(root, tmp_path) as (sidecar, upstream):
        ask(sidecar, upstream, "a.test")
        parked(sidecar, 1)

        assert b" 502 " in ask(sidecar, upstream, "a.test", path, "Content-Length: 0\r\n", method)

    assert upstream.paths == came


def test_a_request_whose_body_has_been_streamed_is_not_repeated_without_it(root: Root, tmp_path: Path) -> None:
    with scene(root, tmp_path) as (sidecar, upstream):
        ask(sidecar, upstream, "a.test")
        parked(sidecar, 1)

        assert b" 502 " in ask(sidecar, upstream, "a.test", "/gone", "Content-Length: 4\r\n\r\nbody", "GET")

    assert upstream.paths == [["/", "/gone"]]
