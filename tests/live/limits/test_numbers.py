"""How many there may be: connections of clients and to upstreams, hosts, streams of one WebSocket's frames."""

import socket
import ssl
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
from mitmproxy import ctx

from sidecar.limits import Limits
from tests.live.inprocess import in_process
from tests.live.limits.scenes import MIB, NAMES, POLICY, Scene, drain, scene_with, send, upstream
from tests.live.sidecars import running, until
from tests.live.test_leavers import never_accepting
from tests.live.upstreams import Root, serving
from tests.live.wire import answer, ask, dial, get, secure

pytestmark = pytest.mark.live

CLIENTS, UPSTREAMS = 20, 8
UPGRADE = ("Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13")
KEY = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    limits = (f"client_connections={CLIENTS}", f"upstream_connections={UPSTREAMS}", "upstreams_per_client=8")
    with scene_with(tmp_path_factory.mktemp("numbers"), *limits, "websocket_frames_per_minute=200") as scene:
        yield scene


def test_a_connection_too_many_reads_why_and_one_that_ends_makes_room(scene: Scene) -> None:
    denied = get("denied.test", "http://denied.test/")
    with scene.bystander(), ExitStack() as others:
        got = None
        for _ in range(CLIENTS):  # the bystander is one of them
            got = ask(others.enter_context(dial(scene.sidecar)), denied)
            if got.status != 403:
                break
        assert got is not None and (got.status, got.reason) == (503, "too_many_connections")
        connection = scene.reached("client_connections")["connection_id"]
        scene.sidecar.event("connection_denied", connection_id=connection, reason="too_many_connections")

    def admitted() -> bool:
        with dial(scene.sidecar) as sock:
            return ask(sock, denied).status == 403

    until(admitted, "room")


def test_a_dial_too_many_is_answered_503_and_one_that_ends_makes_room(scene: Scene) -> None:
    scene.seen.release.clear()
    with scene.bystander(), ExitStack() as held:
        for number in range(UPSTREAMS - 1):  # the bystander's is the last
            sock = held.enter_context(secure(scene.sidecar, scene.authority))
            sock.sendall(get(scene.authority, f"/hold?{number}"))
        with secure(scene.sidecar, scene.authority) as sock:
            got = ask(sock, get(scene.authority, "/one-too-many"))
        assert (got.status, got.reason) == (503, "overload")
        scene.reached("upstream_connections", host="up.test")
        scene.sidecar.event("request_failed", path="/one-too-many", reason="overload")
        scene.seen.release.set()

    def admitted() -> bool:
        with secure(scene.sidecar, scene.authority) as sock:
            return ask(sock, get(scene.authority, "/admitted-again")).status == 200

    until(admitted, "room")


def test_a_client_that_goes_from_host_to_host_keeps_few_upstreams_open(scene: Scene) -> None:
    said = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

    def talk(sock: socket.socket) -> None:
        while sock.recv(65_536):
            sock.sendall(said)

    with ExitStack() as stack:
        ports = [stack.enter_context(upstream(talk)) for _ in range(UPSTREAMS * 2)]
        before = scene.descriptors()
        with dial(scene.sidecar) as sock:
            answered = [ask(sock, get(f"up.test:{p}", f"http://up.test:{p}/many")).status for p in (*ports, *ports)]
            assert scene.descriptors() - before <= 8 + 4
        assert set(answered) == {200}


def test_pings_without_end_end_their_websocket(scene: Scene) -> None:
    ping = bytes([0x89, 0x80, 0, 0, 0, 0])
    with scene.bystander(), scene.flat(), secure(scene.sidecar, scene.authority) as sock:
        sock.sendall(get(scene.authority, "/ws", *UPGRADE, KEY))
        assert sock.recv(4096).startswith(b"HTTP/1.1 101 ")
        send(sock, ping * 100_000)
        drain(sock)

    scene.reached("websocket_frames_per_minute", host="up.test")
    scene.sidecar.event("request_failed", path="/ws", reason="flood")


def test_messages_in_great_number_are_passed_on_and_paid_for_by_what_they_carry(scene: Scene) -> None:
    message, number, at_once = bytes([0x81, 0x81, 0, 0, 0, 0]) + b"x", 20_000, 500
    with scene.bystander(), scene.flat(), secure(scene.sidecar, scene.authority) as sock:
        sock.sendall(get(scene.authority, "/ws?messages", *UPGRADE, KEY))
        assert sock.recv(4096).startswith(b"HTTP/1.1 101 ")
        got = 0
        for sent in range(at_once, number + 1, at_once):
            sock.sendall(message * at_once)
            while got < 3 * sent:  # echoed: b"\x81\x01x"
                piece = sock.recv(65_536)
                assert piece, "the connection has ended"
                got += len(piece)
    assert scene.sidecar.event("request_closed", path="/ws", bytes_out=number)


@pytest.mark.parametrize("count", [60, pytest.param(3000, marks=pytest.mark.heavy)])
def test_idle_connections_disturb_nobody_and_all_is_given_back(
    tmp_path_factory: pytest.TempPathFactory, count: int
) -> None:
    with scene_with(tmp_path_factory.mktemp(f"idle-{count}"), "client_connections=8000") as scene:
        before, kept = scene.descriptors(), []
        with scene.bystander():
            memory = scene.sidecar.rss()
            with ThreadPoolExecutor(16) as pool:
                kept = list(pool.map(lambda _: scene.connect("denied.test:443"), range(count)))
            grown = scene.sidecar.rss() - memory
            assert ask(kept[0], get("denied.test")).status == 403
            for sock in kept:
                sock.close()
            until(lambda: scene.descriptors() <= before + 4, "descriptors")
        assert grown < count * 200_000 + 8 * MIB
        with ThreadPoolExecutor(16) as pool, scene.flat(grown // 2 + 8 * MIB):  # in what the first ones have given back
            for sock in pool.map(lambda _: scene.connect("denied.test:443"), range(count)):
                sock.close()


@pytest.mark.parametrize("count", [25, pytest.param(400, marks=pytest.mark.heavy)])
def test_concurrent_clients_are_all_answered(tmp_path_factory: pytest.TempPathFactory, count: int) -> None:
    with scene_with(tmp_path_factory.mktemp(f"clients-{count}")) as scene, scene.bystander():
        sockets = [scene.connect(scene.authority) for _ in range(count)]
        for sock in sockets:
            sock.sendall(get(scene.authority, "/concurrent"))
        assert [answer(sock).status for sock in sockets] == [200] * count
        for sock in sockets:
            sock.close()


@pytest.mark.parametrize("count", [100, pytest.param(4000, marks=pytest.mark.heavy)])
def test_distinct_hosts_leave_no_more_than_the_limits(tmp_path: Path, count: int) -> None:
    limits = Limits(leaf_contexts=16)
    with in_process(tmp_path, POLICY, upstream_ca=None, names=(), limits=limits) as sidecar:
        context = ssl.create_default_context(cafile=str(sidecar.bundle))
        for number in range(count):
            name = f"h{number}.denied.invalid"
            with socket.create_connection(("127.0.0.1", sidecar.port)) as sock:
                assert ask(sock, get(f"{name}:443", f"{name}:443", method="CONNECT"), method="CONNECT").status == 200
                with context.wrap_socket(sock, server_hostname=name) as secured:
                    assert ask(secured, get(name)).status == 403
        assert len(ctx.master.addons.get("egress_session_ca")._contexts) <= 16


def test_upstreams_that_fail_are_forgotten_while_their_client_stays(tmp_path: Path) -> None:
    root, names = Root(tmp_path), tuple(f"h{number}.test" for number in range(200))
    with (
        socket.socket() as closed,
        in_process(tmp_path, POLICY, upstream_ca=root.pem, names=names) as sidecar,
        socket.create_connection(("127.0.0.1", sidecar.port)) as sock,
    ):
        closed.bind(("127.0.0.1", 0))  # bound and not listening: a dial is refused at once
        port = closed.getsockname()[1]
        for number in range(len(names)):
            target = f"http://h{number}.test:{port}/"
            assert ask(sock, get(f"h{number}.test:{port}", target)).status in (502, 504)
        (handler,) = ctx.master.addons.get("proxyserver").connections.values()
        (record,) = sidecar.session.ledger.connections()
        assert len(record.failures) <= 128 and len(record.cleared) <= 128
        layers = handler.layer.context.layers
        known = [len(layer.connections) for layer in layers if hasattr(layer, "connections")]
        assert known and max(known) <= 18


def test_an_upload_that_waits_for_its_upstream_is_not_kept(tmp_path: Path) -> None:
    root = Root(tmp_path)
    limits = Limits(held_bytes=1_000_000, address_seconds=2.0)
    with (
        never_accepting() as port,
        in_process(tmp_path, POLICY, upstream_ca=root.pem, names=NAMES, limits=limits) as sidecar,
        socket.create_connection(("127.0.0.1", sidecar.port)) as sock,
    ):
        target = f"http://up.test:{port}/waits"
        sock.sendall(get(f"up.test:{port}", target, f"Content-Length: {1 << 30}", method="POST"))
        sidecar.event("request_allowed", path="/waits")
        sock.settimeout(0.5)
        sent = 0
        with suppress(TimeoutError):
            while sent < 200 * MIB:
                sock.sendall(bytes(65_536))
                sent += 65_536
        assert sent < 30 * MIB  # what is held, and what the kernel holds on both sides
        sidecar.event("request_failed", path="/waits", reason="upstream_unreachable")


def test_a_flood_of_denied_requests_is_counted_where_it_can_not_be_written(tmp_path: Path) -> None:
    """The bound is the queue's: what has no room is dropped, counted, and reported."""
    root = Root(tmp_path)
    with serving(root.context(*NAMES)), running(tmp_path / "s", POLICY, "--limit", "event_lines=20") as sidecar:
        with secure(sidecar, "denied.test:443") as sock:
            sock.sendall(get("denied.test") * 300)
            got = b""
            while got.count(b"HTTP/1.1 403 ") < 300:
                got += sock.recv(1 << 20)
        sidecar.stop()
        lines = sidecar.events()
        written = sum(line["event"] == "request_denied" for line in lines)
        reported = sum(line["count"] for line in lines if line["event"] == "events_dropped")
        assert [line["seq"] for line in lines] == list(range(len(lines)))
        assert written + reported >= 300
        assert lines[-1]["summary"]["requests_denied"] == 300
