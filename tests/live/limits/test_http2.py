"""HTTP/2 floods, from clients and from upstreams; and heavy use that is none."""

import socket
import threading
from collections.abc import Callable, Iterator

import h2.config
import h2.connection
import h2.events
import pytest
from hpack import Encoder
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    ExtensionFrame,
    Frame,
    HeadersFrame,
    PingFrame,
    PriorityFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

from tests.live.limits.scenes import MIB, Scene, drain, scene_with, send, upstream
from tests.live.sidecars import SECONDS, Line, until
from tests.live.wire import Http2Client, goaway, secure

pytestmark = pytest.mark.live

STREAMS, RESETS, FRAMES = 20, 30, 300


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    limits = (f"http2_streams={STREAMS}", f"http2_resets_per_minute={RESETS}", f"http2_frames_per_minute={FRAMES}")
    with scene_with(tmp_path_factory.mktemp("http2"), *limits, "http2_head_bytes=8192", "held_bytes=1000000") as scene:
        yield scene


class Heads:
    """Requests' heads as raw frames."""

    def __init__(self, authority: str) -> None:
        self._authority, self._encoder, self.stream = authority, Encoder(), -1

    def frame(self, *headers: tuple[str, str], end: bool = True, path: str = "/") -> HeadersFrame:
        self.stream += 2
        head = [(":method", "GET"), (":scheme", "https"), (":path", path), (":authority", self._authority), *headers]
        flags = ["END_HEADERS", *(["END_STREAM"] if end else [])]
        return HeadersFrame(self.stream, self._encoder.encode(head), flags=flags)


def rapid_reset(heads: Heads) -> Iterator[Frame]:
    while True:
        yield heads.frame()
        yield RstStreamFrame(heads.stream, 8)


def made_to_reset(heads: Heads) -> Iterator[Frame]:
    """CVE-2025-8671: the server is made to reset what the client has opened."""
    while True:
        yield heads.frame(end=False)
        yield WindowUpdateFrame(heads.stream, 2**31 - 1)


def settings(_: Heads) -> Iterator[Frame]:
    while True:
        yield SettingsFrame(0, {4: 65_535})


def pings(_: Heads) -> Iterator[Frame]:
    while True:
        yield PingFrame(0, b"12345678")


def priorities(heads: Heads) -> Iterator[Frame]:
    while True:
        yield PriorityFrame(heads.stream + 2, depends_on=0, stream_weight=1)


def windows(_: Heads) -> Iterator[Frame]:
    while True:
        yield WindowUpdateFrame(0, 1)


def unknown(_: Heads) -> Iterator[Frame]:
    while True:
        yield ExtensionFrame(0xEE, 0, flag_byte=0, body=b"")


def empty_data(heads: Heads) -> Iterator[Frame]:
    yield heads.frame(end=False)
    while True:
        yield DataFrame(heads.stream, b"")


def continuations(heads: Heads) -> Iterator[Frame]:
    frame = heads.frame(path="/continued")
    frame.flags.discard("END_HEADERS")
    yield frame
    while True:
        yield ContinuationFrame(heads.stream, b"\x00\x01x" + b"\x7f\x81\x07" + b"x" * 1000)


def many_streams(heads: Heads) -> Iterator[Frame]:
    while True:
        yield heads.frame(end=False)


def bomb(heads: Heads) -> Iterator[Frame]:
    """A kilobyte on the wire that is a head of megabytes: one field that is referred to again and again."""
    frame = heads.frame(("x", "y" * 3000))
    frame.data += bytes([0xBE]) * 1000
    yield frame


@pytest.mark.parametrize(
    ("frames", "limit"),
    [
        (rapid_reset, "http2_resets_per_minute"),
        (made_to_reset, "http2_resets_per_minute"),
        (settings, "http2_frames_per_minute"),
        (pings, "http2_frames_per_minute"),
        (priorities, "http2_frames_per_minute"),
        (windows, "http2_frames_per_minute"),
        (unknown, "http2_frames_per_minute"),
        (empty_data, "http2_frames_per_minute"),
        (continuations, "http2_head_bytes"),
        (many_streams, "http2_streams"),
        (bomb, "http2_head_bytes"),
    ],
)
def test_a_flood_ends_its_own_connection_and_no_other(
    scene: Scene, frames: Callable[[Heads], Iterator[Frame]], limit: str
) -> None:
    client = scene.http2("denied.test:443")
    heads = Heads("denied.test")
    flood = frames(heads)

    def reached() -> list[Line]:
        return scene.sidecar.events("limit_reached", limit=limit, host="denied.test")

    before = {line["connection_id"] for line in reached()}
    with scene.bystander(), scene.flat(), client.sock as sock:
        whole = b"".join(frame.serialize() for _, frame in zip(range(5000), flood, strict=False))
        send(sock, whole)
        got = drain(sock)

    assert goaway(got) in (None, 11)  # a reset of TCP may come before it
    (connection,) = until(lambda: {line["connection_id"] for line in reached()} - before, f"{limit}")
    handled = len(scene.sidecar.events("request_denied", connection_id=connection))
    assert handled <= 2 * RESETS + STREAMS, "what comes after the limit isn't even judged"


def test_a_rapid_reset_opens_no_more_requests_than_the_limit_has_room_for(scene: Scene) -> None:
    client = scene.http2()
    heads, before = Heads(scene.authority_http2), len(scene.seen_http2.requests)
    flood = rapid_reset(heads)
    with scene.bystander(), client.sock as sock:
        send(sock, b"".join(frame.serialize() for _, frame in zip(range(4000), flood, strict=False)))
        drain(sock)

    assert len(scene.seen_http2.requests) - before <= 2 * RESETS + STREAMS


def test_heavy_use_is_no_flood(scene: Scene) -> None:
    """Ten times the budget of frames and more than that of resets, each paid for by requests and data."""
    client, authority = scene.http2(), scene.authority_http2
    with client.sock:
        for number in range(120):
            answer = client.ask(authority, "/bytes/20000")  # this client opens its windows with each frame of DATA
            assert answer is not None and len(answer.body) == 20_000
            for _ in range(20):
                client.h2.ping(b"12345678")
            if number % 4 == 0:
                stream = client.open(authority, "/events")
                client.h2.reset_stream(stream, 8)
            client.flush()
        assert client.ask(authority) is not None


def test_a_large_download_pays_for_its_window_updates(scene: Scene) -> None:
    client = scene.http2()
    with client.sock:
        answer = client.ask(scene.authority_http2, f"/bytes/{16 * MIB}")
    assert answer is not None and len(answer.body) == 16 * MIB


def test_bytes_that_are_sent_singly_arrive_and_disturb_nobody(scene: Scene) -> None:
    client, before, number = scene.http2(), scene.seen_http2.body_bytes, 100_000
    heads = Heads(scene.authority_http2)
    frame = heads.frame(end=False, path="/singly")
    frames = frame.serialize() + DataFrame(heads.stream, b"x").serialize() * number
    with scene.bystander(), client.sock as sock:
        sock.sendall(frames + DataFrame(heads.stream, b"y", flags=["END_STREAM"]).serialize())
        until(lambda: scene.sidecar.events("request_closed", path="/singly"), "answer")

    assert scene.seen_http2.body_bytes - before == number + 1


@pytest.mark.parametrize("flood", [pings, settings, windows], ids=lambda flood: flood.__name__)
def test_a_flood_of_an_upstream_ends_that_upstream_alone(
    scene: Scene, flood: Callable[[Heads], Iterator[Frame]]
) -> None:
    context = scene.root.context("up.test", alpn=("h2",))
    frames = b"".join(frame.serialize() for _, frame in zip(range(3000), flood(Heads("")), strict=False))

    def talk(sock: socket.socket) -> None:
        with context.wrap_socket(sock, server_side=True) as secured:
            server = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
            server.initiate_connection()
            secured.sendall(server.data_to_send())
            while not any(isinstance(e, h2.events.RequestReceived) for e in server.receive_data(secured.recv(65_536))):
                secured.sendall(server.data_to_send())
            send(secured, frames)
            drain(secured)

    path = f"/flooded/{flood.__name__}"
    with upstream(talk) as port, scene.bystander(), secure(scene.sidecar, f"up.test:{port}", alpn=("h2",)) as sock:
        answer = Http2Client(sock).ask(f"up.test:{port}", path)

    assert answer is not None and (answer.status, answer.reason) == (502, "upstream_protocol")
    scene.reached("http2_frames_per_minute", host="up.test")
    scene.sidecar.event("request_failed", path=path, reason="upstream_protocol")


def test_what_mitmproxy_itself_refuses_is_answered_with_a_problem_document(scene: Scene) -> None:
    client = scene.http2()
    with client.sock:
        answer = client.ask(scene.authority_http2, "/invalid", ("x{y", "1"))
        again = client.ask(scene.authority_http2, "/valid")

    assert answer is not None and (answer.status, answer.reason) == (400, "malformed_request")
    assert again is not None and again.status == 200


def test_thousands_of_streams_leave_nothing_behind(scene: Scene) -> None:
    client, authority = scene.http2(), scene.authority_http2
    with client.sock:
        for _ in range(300):
            assert client.ask(authority) is not None
        with scene.flat(2 * MIB):
            for _ in range(1000):
                assert client.ask(authority) is not None


def test_an_upload_that_waits_for_a_place_at_the_upstream_is_not_kept(scene: Scene) -> None:
    """An upstream that takes one stream at a time, and doesn't answer it: the others' bodies wait with the client."""
    context, limit_known = scene.root.context("up.test", alpn=("h2",)), threading.Event()

    def talk(sock: socket.socket) -> None:
        with context.wrap_socket(sock, server_side=True) as secured:
            server = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
            server.local_settings.max_concurrent_streams = 1
            server.local_settings.acknowledge()  # so that it is sent
            server.initiate_connection()
            while True:
                secured.sendall(server.data_to_send())
                if not (data := secured.recv(65_536)):
                    return
                for event in server.receive_data(data):
                    if isinstance(event, h2.events.SettingsAcknowledged):
                        limit_known.set()

    with upstream(talk) as port, scene.bystander(), scene.flat(40 * MIB):
        client = Http2Client(secure(scene.sidecar, f"up.test:{port}", alpn=("h2",)))
        heads, body = Heads(f"up.test:{port}"), DataFrame(3, bytes(16_000)).serialize()
        with client.sock as sock:
            sock.settimeout(1)
            send(sock, heads.frame(end=False).serialize())
            scene.sidecar.event("request_allowed", port=port)
            assert limit_known.wait(SECONDS)
            send(sock, heads.frame(end=False).serialize())
            until(lambda: len(scene.sidecar.events("request_allowed", port=port)) == 2, "second request")
            taken = 0
            try:
                while taken < 200 * MIB:
                    sock.sendall(body)
                    taken += len(body)
            except TimeoutError:
                pass
    assert taken < 40 * MIB
