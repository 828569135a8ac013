"""A policy that changes while the sidecar runs: put in force whole, and what it no longer allows ends at once."""

import asyncio
import resource
import signal
import socket
import ssl
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import h2.events
import pytest

from sidecar.policy import parse_policy
from tests.live.mounted import put
from tests.live.sidecars import SECONDS, Line, Sidecar, running, until
from tests.live.upstreams import Root, Seen, serving
from tests.live.wire import Http2Client, answer, ask, dial, get, secure, trusting, tunnel

pytestmark = pytest.mark.live

EVERYTHING = '- allow: ["*.test"]\n    ports: ["1-65535"]'
PINNED = '- passthrough: ["pinned.test"]\n    ports: ["1-65535"]'
NOT_EVENTS = '- deny: ["*.test"]\n    paths: ["/events", "/hold", "/ws"]'
NOBODY = '- deny: ["one.test", "two.test"]'


def policy(*rules: str, addresses: str = '"127.0.0.1"') -> str:
    lines = "\n  ".join(rules)
    return f"version: 1\nrules:\n  {lines}\nnetwork:\n  allow_addresses: [{addresses}]\n"


OPEN = policy(PINNED, EVERYTHING)


def hash_of(text: str) -> str:
    return parse_policy(text).hash


@dataclass
class Scene:
    sidecar: Sidecar
    file: Path
    root: Root
    port: int
    seen: Seen
    port_http2: int

    def reload(self, text: str) -> Line:
        """Put *text* in force; gives the event that says so."""
        before = len(self.sidecar.events("policy_loaded"))
        put(self.file, text)
        loaded = until(lambda: self.sidecar.events("policy_loaded")[before:] or None, f"reload: {text}")[0]
        assert loaded["policy_hash"] == hash_of(text)
        return loaded

    def revoked(self, path: str, since: int) -> Line:
        """The closing record of a request that was revoked after the event number *since*."""
        kinds = {"event": "request_failed", "path": path, "reason": "policy_changed"}
        return until(
            lambda: next((e for e in self.sidecar.events() if e["seq"] > since and kinds.items() <= e.items()), None),
            f"{kinds} in {self.sidecar.events()}",
        )

    @property
    def last(self) -> int:
        return int(self.sidecar.events()[-1]["seq"])


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    folder = tmp_path_factory.mktemp("reload")
    root = Root(folder)
    with (
        serving(root.context("one.test", "pinned.test")) as (one, seen),
        serving(root.context("two.test", alpn=("h2",)), http2=True) as (two, _),
        running(
            folder / "sidecar",
            OPEN,
            *("--upstream-ca", str(root.pem), "--event-level", "debug"),
            *(f"--resolve={name}.test:127.0.0.1" for name in ("one", "two", "pinned")),
        ) as sidecar,
    ):
        sidecar.event("policy_loaded")
        yield Scene(sidecar, folder / "sidecar" / "policy.yaml", root, one, seen, two)


@pytest.fixture
def scene(started: Scene) -> Iterator[Scene]:
    yield started
    started.seen.release.clear()
    if started.sidecar.events("policy_loaded")[-1]["policy_hash"] != hash_of(OPEN):
        started.reload(OPEN)


def ends(sock: socket.socket) -> bool:
    """Whether the peer has closed the connection, within the time that a test has."""
    sock.settimeout(SECONDS)
    try:
        while sock.recv(65_536):
            pass
    except (ssl.SSLEOFError, ConnectionResetError):
        return True
    except TimeoutError:
        return False
    return True


def is_open(sock: socket.socket) -> bool:
    sock.settimeout(0.3)
    try:
        return sock.recv(65_536) != b""
    except TimeoutError:
        return True
    except OSError:
        return False


# What is put in force, and how


def in_place(path: Path, text: str) -> None:
    path.write_text(text)


def in_pieces(path: Path, text: str) -> None:
    with path.open("w") as file:
        for line in text.splitlines(keepends=True):
            file.write(line)
            file.flush()
            time.sleep(0.01)


@pytest.mark.parametrize(
    "write",
    [
        pytest.param(in_place, id="a file written in place"),
        pytest.param(in_pieces, id="a file written in place, line by line, is read when it is whole"),
        pytest.param(put, id="a file replaced by another one"),
    ],
)
def test_a_changed_file_is_put_in_force(scene: Scene, write: Callable[[Path, str], None]) -> None:
    before = scene.sidecar.events("policy_loaded")[-1]
    text = policy(NOBODY, PINNED, EVERYTHING)

    write(scene.file, text)

    loaded = scene.sidecar.event("policy_loaded", generation=before["generation"] + 1)
    assert loaded["policy_hash"] == hash_of(text) != before["policy_hash"]
    assert loaded["source"] == str(scene.file)
    with secure(scene.sidecar, f"one.test:{scene.port}") as sock:
        assert ask(sock, get(f"one.test:{scene.port}")).reason == "rule_deny"
        scene.sidecar.event("request_denied", policy_generation=loaded["generation"])


def test_a_config_map_is_followed_through_its_links(tmp_path: Path) -> None:
    def version(name: str, text: str) -> None:
        (mount / name).mkdir()
        (mount / name / "policy.yaml").write_text(text)
        (mount / "..data_tmp").symlink_to(name)
        (mount / "..data_tmp").replace(mount / "..data")

    mount = tmp_path / "mount"
    mount.mkdir()
    texts = [policy(EVERYTHING, addresses=f'"192.0.2.{i}"') for i in range(4)]
    version("..0", texts[0])
    (mount / "policy.yaml").symlink_to("..data/policy.yaml")

    with running(tmp_path / "sidecar", OPEN, "--policy", str(mount / "policy.yaml")) as sidecar:
        for i in (1, 2, 3):
            version(f"..{i}", texts[i])
            (mount / f"..{i - 1}" / "policy.yaml").unlink()
            (mount / f"..{i - 1}").rmdir()
            loaded = sidecar.event("policy_loaded", generation=i + 1)
            assert loaded["policy_hash"] == hash_of(texts[i])
        assert not sidecar.events("policy_reload_failed")


def test_the_same_text_again_is_no_event(scene: Scene) -> None:
    before = scene.sidecar.events("policy_loaded")

    put(scene.file, OPEN)
    scene.sidecar.process.send_signal(signal.SIGHUP)
    loaded = scene.reload(policy(EVERYTHING))

    assert loaded["generation"] == before[-1]["generation"] + 1
    assert len(scene.sidecar.events("policy_loaded")) == len(before) + 1


def test_an_invalid_policy_leaves_the_last_good_one_in_force_and_says_why_once(scene: Scene) -> None:
    good = scene.sidecar.events("policy_loaded")[-1]
    since = scene.last

    put(scene.file, "version: 1\nrules:\n  - alow: ['one.test']\n")
    failed = until(lambda: scene.sidecar.events("policy_reload_failed")[-1:] or None, "policy_reload_failed")[0]
    put(scene.file, "version: 1\nrules:\n  - alow: ['one.test']\n")
    scene.sidecar.process.send_signal(signal.SIGHUP)
    with secure(scene.sidecar, f"one.test:{scene.port}") as sock:
        assert ask(sock, get(f"one.test:{scene.port}")).status == 200
    loaded = scene.reload(policy(EVERYTHING))

    assert len(failed["problems"]) == 2
    assert failed["problems"][0].startswith(f"{scene.file}:3:5: rules[0].alow: 'alow' is not a key; write 'allow'")
    assert (failed["generation"], failed["policy_hash"]) == (good["generation"], good["policy_hash"])
    assert loaded["generation"] == good["generation"] + 1
    assert sum(e["event"] == "policy_reload_failed" for e in scene.sidecar.events() if e["seq"] > since) == 1


def test_a_file_that_is_deleted_and_comes_back(scene: Scene) -> None:
    failures = len(scene.sidecar.events("policy_reload_failed"))

    scene.file.unlink()
    failed = until(lambda: scene.sidecar.events("policy_reload_failed")[failures:] or None, "policy_reload_failed")[0]
    with secure(scene.sidecar, f"one.test:{scene.port}") as sock:
        assert ask(sock, get(f"one.test:{scene.port}")).status == 200
    scene.reload(policy(NOBODY, EVERYTHING))

    assert failed["problems"] == [
        f"{scene.file}: can't be read: no such file or directory; give the path of a policy file"
    ]
    assert len(scene.sidecar.events("policy_reload_failed")) == failures + 1


def test_a_file_that_could_not_be_opened_is_read_once_it_can_be(scene: Scene) -> None:
    pid, before = scene.sidecar.process.pid, scene.last
    soft, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (3, hard))  # as if a workload had used up all descriptors
    try:
        put(scene.file, policy(PINNED, NOBODY))
        failed = until(
            lambda: next((e for e in scene.sidecar.events("policy_reload_failed") if e["seq"] > before), None),
            "failure",
        )
    finally:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (soft, hard))

    assert "too many open files" in failed["problems"][0]
    wanted = hash_of(policy(PINNED, NOBODY))
    until(lambda: [e for e in scene.sidecar.events("policy_loaded", policy_hash=wanted) if e["seq"] > before], "reload")


def test_sighup_has_the_file_read_at_once(scene: Scene) -> None:
    before = scene.sidecar.events("policy_loaded")[-1]["generation"]

    put(scene.file, policy(EVERYTHING))
    scene.sidecar.process.send_signal(signal.SIGHUP)

    assert scene.sidecar.event("policy_loaded", generation=before + 1)["policy_hash"] == hash_of(policy(EVERYTHING))


# What a stricter policy ends


def test_a_streaming_answer_over_http_1_ends(scene: Scene) -> None:
    since = scene.last
    with secure(scene.sidecar, f"one.test:{scene.port}") as sock:
        sock.sendall(get(f"one.test:{scene.port}", "/events"))
        assert b"data: first" in _until_bytes(sock, b"first")

        loaded = scene.reload(policy(NOBODY, EVERYTHING))

        assert ends(sock)
    assert loaded["revoked_connections"] == 1
    failed = scene.revoked("/events", since)
    assert "rules[0]" in failed["detail"] and failed["bytes_in"] > 0


def test_a_download_whose_client_does_not_read_ends(scene: Scene) -> None:
    since = scene.last
    with secure(scene.sidecar, f"one.test:{scene.port}") as sock:
        sock.sendall(get(f"one.test:{scene.port}", "/bytes/1000000000"))
        assert sock.recv(1)
        until(lambda: scene.seen.sent_bytes > 1_000_000, "a download that fills every buffer")

        scene.reload(policy(NOBODY, EVERYTHING))

        scene.revoked("/bytes/1000000000", since)
        assert ends(sock)


def test_an_idle_connection_stays_and_its_next_request_is_denied(scene: Scene) -> None:
    with secure(scene.sidecar, f"one.test:{scene.port}") as sock:
        assert ask(sock, get(f"one.test:{scene.port}")).status == 200

        loaded = scene.reload(policy(NOBODY, EVERYTHING))

        assert loaded["revoked_connections"] == 0
        assert ask(sock, get(f"one.test:{scene.port}")).reason == "rule_deny"
        scene.reload(OPEN)
        assert ask(sock, get(f"one.test:{scene.port}")).status == 200, "the same connection, allowed again"


def test_a_request_that_waits_for_its_answer_gets_a_403_that_says_why(scene: Scene) -> None:
    since = scene.last
    seen = len(scene.seen.requests)
    with secure(scene.sidecar, f"one.test:{scene.port}") as sock:
        sock.sendall(get(f"one.test:{scene.port}", "/hold"))
        until(lambda: len(scene.seen.requests) > seen, "the request at the upstream")

        scene.reload(policy(NOT_EVENTS, EVERYTHING))

        refused = answer(sock)
        assert (refused.status, refused.reason) == (403, "policy_changed")
        assert ask(sock, get(f"one.test:{scene.port}")).status == 200, "the path that is still allowed"
    scene.revoked("/hold", since)


def test_a_request_whose_upstream_is_still_being_dialled_gets_its_403(scene: Scene) -> None:
    since = scene.last
    with socket.create_server(("127.0.0.1", 0)) as never_shakes_hands, dial(scene.sidecar) as sock:
        authority = f"one.test:{never_shakes_hands.getsockname()[1]}"
        sock.sendall(f"GET https://{authority}/slow HTTP/1.1\r\nHost: {authority}\r\n\r\n".encode())
        upstream, _ = never_shakes_hands.accept()
        with upstream:
            scene.reload(policy(NOBODY, EVERYTHING))

            refused = answer(sock)
            assert (refused.status, refused.reason) == (403, "policy_changed")
            assert ends(upstream)
    scene.revoked("/slow", since)


def test_an_upload_that_is_under_way_ends(scene: Scene) -> None:
    since = scene.last
    with secure(scene.sidecar, f"one.test:{scene.port}") as sock:
        sock.sendall(get(f"one.test:{scene.port}", "/upload", "Content-Length: 1000000", method="PUT") + b"x" * 1000)
        scene.sidecar.event("request_allowed", path="/upload")
        until(lambda: scene.seen.body_bytes >= 1000, "the first bytes at the upstream")
        before = scene.seen.body_bytes

        scene.reload(policy(NOBODY, EVERYTHING))

        refused = answer(sock)
        assert refused.reason == "policy_changed"
        with suppress(OSError):
            sock.sendall(b"y" * 100_000)
    scene.revoked("/upload", since)
    assert scene.seen.body_bytes == before


def test_a_websocket_ends(scene: Scene) -> None:
    since = scene.last
    loop = asyncio.new_event_loop()

    async def talk() -> Any:
        url = f"https://one.test:{scene.port}/ws"
        async with (
            aiohttp.ClientSession() as client,
            client.ws_connect(url, proxy=scene.sidecar.proxy, ssl=trusting(scene.sidecar)) as socket,
        ):
            await socket.send_str("hello")
            assert await socket.receive_str(timeout=SECONDS) == "hello"
            await loop.run_in_executor(None, scene.reload, policy(NOT_EVENTS, EVERYTHING))
            return (await socket.receive(timeout=SECONDS)).type

    kind = loop.run_until_complete(talk())
    loop.close()

    assert kind in (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.ERROR)
    scene.revoked("/ws", since)


@pytest.mark.parametrize(
    ("rules", "detail"),
    [
        pytest.param(['- deny: ["pinned.test"]', EVERYTHING], "is denied by rules[0]", id="its name is denied"),
        pytest.param([EVERYTHING], "no longer passed through", id="its rule has gone, and it would be intercepted"),
    ],
)
def test_a_passthrough_tunnel_ends(scene: Scene, rules: list[str], detail: str) -> None:
    since = scene.last
    context = ssl.create_default_context(cafile=str(scene.root.pem))
    with context.wrap_socket(tunnel(scene.sidecar, f"pinned.test:{scene.port}"), server_hostname="pinned.test") as sock:
        sock.sendall(get(f"pinned.test:{scene.port}", "/events"))
        _until_bytes(sock, b"first")

        loaded = scene.reload(policy(*rules))

        assert ends(sock)
    assert loaded["revoked_connections"] == 1
    closed = until(
        lambda: [e for e in scene.sidecar.events("connection_closed", reason="policy_changed") if e["seq"] > since],
        "connection_closed",
    )
    assert detail in closed[0]["detail"]
    assert closed[0]["protocol"] == "passthrough" and closed[0]["bytes_in"] > 0


def test_a_tunnel_that_has_said_nothing_yet_is_judged_by_the_new_policy(scene: Scene) -> None:
    with tunnel(scene.sidecar, f"pinned.test:{scene.port}") as plain:
        scene.reload(policy(EVERYTHING))

        with trusting(scene.sidecar).wrap_socket(plain, server_hostname="pinned.test") as sock:
            assert ask(sock, get(f"pinned.test:{scene.port}")).status == 200, "intercepted: our CA is trusted"


def test_one_http_2_stream_ends_and_its_neighbour_goes_on(scene: Scene) -> None:
    since, handshakes = scene.last, scene.root.connections
    name = f"two.test:{scene.port_http2}"
    with secure(scene.sidecar, name, alpn=("h2",)) as sock:
        client = Http2Client(sock)
        download = client.open(name, "/bytes/3000000")
        events = client.open(name, "/events")
        got = _collect(client, lambda got: b"first" in got.get(events, b""), "the first event")

        loaded = scene.reload(policy(NOT_EVENTS, EVERYTHING))
        reset: list[int] = []
        got = _collect(
            client, lambda got: bool(reset) and len(got.get(download, b"")) == 3_000_000, "reset and end", got, reset
        )

        assert reset == [events]
        denied = client.ask(name, "/events")
        assert denied is not None and denied.reason == "rule_deny"
        allowed = client.ask(name, "/")
        assert allowed is not None and allowed.status == 200
    assert loaded["revoked_connections"] == 1
    scene.revoked("/events", since)
    assert scene.sidecar.event("request_closed", path="/bytes/3000000")["bytes_in"] == 3_000_000
    assert scene.root.connections == handshakes + 1, "one connection to the upstream, from first to last"


def test_http_2_streams_of_a_host_that_is_denied_end_and_the_connection_stays(scene: Scene) -> None:
    since = scene.last
    name = f"two.test:{scene.port_http2}"
    with secure(scene.sidecar, name, alpn=("h2",)) as sock:
        client = Http2Client(sock)
        streams = [client.open(name, "/events"), client.open(name, "/bytes/20000000")]
        _collect(client, lambda got: all(got.get(stream) for stream in streams), "both to begin")

        scene.reload(policy(NOBODY, EVERYTHING))
        reset: list[int] = []
        _collect(client, lambda _: len(reset) == 2, "both to be reset", {}, reset)

        assert sorted(reset) == sorted(streams)
        denied = client.ask(name)
        assert denied is not None and denied.reason == "rule_deny"
    scene.revoked("/events", since)
    scene.revoked("/bytes/20000000", since)


def test_an_address_that_is_no_longer_excepted_ends_what_was_dialled(scene: Scene) -> None:
    since = scene.last
    with secure(scene.sidecar, f"one.test:{scene.port}") as sock:
        sock.sendall(get(f"one.test:{scene.port}", "/events"))
        _until_bytes(sock, b"first")

        scene.reload(policy(PINNED, EVERYTHING, addresses='"192.0.2.1"'))

        assert ends(sock)
    assert "127.0.0.1, which is loopback" in scene.revoked("/events", since)["detail"]


def test_a_looser_policy_leaves_everything_open(scene: Scene) -> None:
    scene.reload(policy('- deny: ["other.test"]', PINNED, EVERYTHING))
    context = ssl.create_default_context(cafile=str(scene.root.pem))
    name = f"two.test:{scene.port_http2}"
    with (
        secure(scene.sidecar, f"one.test:{scene.port}") as one,
        secure(scene.sidecar, name, alpn=("h2",)) as two,
        context.wrap_socket(tunnel(scene.sidecar, f"pinned.test:{scene.port}"), server_hostname="pinned.test") as three,
        dial(scene.sidecar) as four,
    ):
        for sock in (one, three):
            sock.sendall(get("one.test" if sock is one else "pinned.test", "/events"))
            _until_bytes(sock, b"first")
        client = Http2Client(two)
        stream = client.open(name, "/events")
        _collect(client, lambda got: b"first" in got.get(stream, b""), "the first event")

        loaded = scene.reload(policy(PINNED, EVERYTHING, '- allow: ["more.test"]'))

        assert loaded["revoked_connections"] == 0
        assert all(is_open(sock) for sock in (one, two, three, four))


@pytest.mark.heavy
def test_200_reloads_with_100_requests_in_flight(tmp_path: Path) -> None:
    """Every request gets one verdict, of one of the policies that were in force, and it is that policy's."""
    names = [f"p{i}.test" for i in range(20)]
    texts = [policy(f'- deny: ["{name}"]\n    methods: [GET]', EVERYTHING) for name in names]
    denied = {hash_of(text): name for text, name in zip(texts, names, strict=True)}
    statuses: Counter[int] = Counter()
    done = False

    async def ask_on(client: aiohttp.ClientSession, url: str) -> None:
        while not done:
            async with client.get(url, proxy=sidecar.proxy) as response:
                await response.read()
            statuses[response.status] += 1
            await asyncio.sleep(0.1)  # denied: it is tried again and again until it is allowed

    def reload_often() -> None:
        nonlocal done
        tail = bytearray()
        with (tmp_path / "sidecar" / "events.jsonl").open("rb") as log:

            def written(line: bytes) -> bool:
                tail.extend(log.read())
                return line in tail

            try:
                until(lambda: written(b"request_allowed") and tail.count(b"request_allowed") >= 95, "requests")
                for i in range(1, 201):
                    tail.clear()
                    put(file, texts[i % len(texts)])
                    sidecar.process.send_signal(signal.SIGHUP)
                    until(partial(written, b'"generation":%d,' % (i + 1)), f"generation {i + 1}")
            finally:
                done = True
                seen.release.set()

    async def storm() -> None:
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as client:
            reloads = asyncio.get_running_loop().run_in_executor(None, reload_often)
            await asyncio.gather(reloads, *(ask_on(client, f"http://{names[i % 20]}:{port}/hold") for i in range(100)))

    resolve = (f"--resolve={name}:127.0.0.1" for name in names)
    with serving(None) as (port, seen), running(tmp_path / "sidecar", texts[0], *resolve) as sidecar:
        file = tmp_path / "sidecar" / "policy.yaml"
        asyncio.run(storm())

    events = sidecar.events()
    loaded = {e["generation"]: e["policy_hash"] for e in events if e["event"] == "policy_loaded"}
    verdicts = [e for e in events if e["event"] in ("request_allowed", "request_denied")]
    assert list(loaded) == list(range(1, 202))
    for verdict in verdicts:
        assert loaded[verdict["policy_generation"]] == verdict["policy_hash"], verdict
        is_denied = verdict["host"] == denied[verdict["policy_hash"]]
        assert is_denied == (verdict["event"] == "request_denied"), verdict
    count = Counter(e["event"] for e in events)
    revoked = [e for e in events if e["event"] == "request_failed"]
    assert statuses[403] == count["request_denied"] + len(revoked) and statuses[200] == count["request_closed"]
    assert len(revoked) > 500 and {e["reason"] for e in revoked} == {"policy_changed"}


def _until_bytes(sock: socket.socket, wanted: bytes) -> bytes:
    data = b""
    while wanted not in data:
        data += (more := sock.recv(65_536))
        assert more, data
    return data


def _collect(
    client: Http2Client,
    enough: Callable[[dict[int, bytes]], bool],
    what: str,
    got: dict[int, bytes] | None = None,
    reset: list[int] | None = None,
) -> dict[int, bytes]:
    """Read until it is *enough*; gives the bodies by stream, and adds the streams that were reset to *reset*."""
    got = got if got is not None else {}
    client.sock.settimeout(SECONDS)
    while not enough(got):
        data = client.sock.recv(65_536)
        assert data, f"the connection has ended before {what}"
        for event in client.h2.receive_data(data):
            if isinstance(event, h2.events.DataReceived):
                got[event.stream_id or 0] = got.get(event.stream_id or 0, b"") + (event.data or b"")
                client.h2.acknowledge_received_data(event.flow_controlled_length or 0, event.stream_id or 0)
            elif isinstance(event, h2.events.StreamReset) and reset is not None:
                reset.append(event.stream_id or 0)
        client.flush()
    return got
