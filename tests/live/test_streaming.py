"""Bodies stream: as they come, in bounded memory, and a refusal doesn't wait for an upload's end."""

import asyncio
import json
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest

from tests.live.sidecars import SECONDS, Sidecar, running, until
from tests.live.upstreams import Root, Seen, serving
from tests.live.wire import Http2Client, ask, environment, get, secure, trusting

pytestmark = pytest.mark.live

MIB = 1 << 20
HEADROOM = 50 * MIB  # what the sidecar may grow by, whatever goes through it

POLICY = """
version: 1
rules:
  - deny: ["denied.test"]
  - allow: ["**.test", "*.test"]
    ports: [80, 443, {ports}]
network:
  allow_addresses: ["127.0.0.1"]
"""


@dataclass(frozen=True)
class Scene:
    sidecar: Sidecar
    root: Root
    port: int
    seen: Seen
    port_http2: int
    seen_http2: Seen

    @contextmanager
    def flat(self) -> Iterator[None]:
        """What happens inside grows the sidecar's peak memory by less than `HEADROOM`."""
        Path(f"/proc/{self.sidecar.process.pid}/clear_refs").write_text("5")  # the peak starts again from here
        before = self.sidecar.rss()
        yield
        growth = self.sidecar.peak_rss() - before
        assert growth < HEADROOM, f"grew by {growth / MIB:.0f} MiB"

    def curl(self, url: str, *arguments: str) -> tuple[dict[str, object], bytes]:
        """Run curl through the sidecar; gives what it measured, and the body that it read."""
        if shutil.which("curl") is None:
            pytest.fail("needs curl")
        command = ["curl", "--silent", "--max-time", "90", "--write-out", "%{stderr}%{json}", *arguments, url]
        trust = {"CURL_CA_BUNDLE": str(self.sidecar.trust / "bundle.pem")}
        done = subprocess.run(
            command, env=environment(proxy=self.sidecar.proxy, **trust), capture_output=True, timeout=100, check=False
        )
        return json.loads(done.stderr), done.stdout


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    folder = tmp_path_factory.mktemp("streaming")
    root = Root(folder)
    with (
        serving(root.context("allowed.test")) as (one, seen_one),
        serving(root.context("allowed.test", alpn=("h2",)), http2=True) as (two, seen_two),
        running(
            folder / "sidecar",
            POLICY.format(ports="1024-65535"),
            *("--upstream-ca", str(root.pem), "--resolve", "allowed.test:127.0.0.1"),
        ) as sidecar,
    ):
        scene = Scene(sidecar, root, one, seen_one, two, seen_two)
        for port in (one, two):  # so that what is loaded once isn't counted as growth
            assert scene.curl(f"https://allowed.test:{port}/bytes/1000000")[0]["http_code"] == 200
        yield scene


@pytest.fixture(scope="module")
def sparse(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Path]:
    """A file of so many bytes that takes no space."""

    def make(size: int) -> Path:
        path = tmp_path_factory.getbasetemp() / f"sparse-{size}"
        with path.open("wb") as file:
            file.truncate(size)
        return path

    return make


def test_a_gibibyte_streams_down_over_http_1(scene: Scene) -> None:
    size = 1 << 30
    with scene.flat():
        told, _ = scene.curl(f"https://allowed.test:{scene.port}/bytes/{size}", "--output", "/dev/null")

    assert (told["http_code"], told["size_download"], told["http_version"]) == (200, size, "1.1")
    assert scene.sidecar.event("request_closed", path=f"/bytes/{size}")["bytes_in"] == size


def test_256_mebibytes_stream_down_over_http_2(scene: Scene) -> None:
    size = 256 * MIB
    with scene.flat():
        told, _ = scene.curl(f"https://allowed.test:{scene.port_http2}/bytes/{size}", "--output", "/dev/null")

    assert (told["http_code"], told["size_download"], told["http_version"]) == (200, size, "2")
    assert scene.sidecar.event("request_closed", path=f"/bytes/{size}")["bytes_in"] == size


@pytest.mark.parametrize(
    ("path", "options"),
    [
        pytest.param("/up/length", ["--http1.1", "--header", "Expect:"], id="with a length"),
        pytest.param("/up/chunked", ["--http1.1", "--header", "Expect:", "-HTransfer-Encoding: chunked"], id="chunked"),
        pytest.param("/up/expect", ["--http1.1", "--header", "Expect: 100-continue"], id="with Expect"),
        pytest.param("/up/http2", ["--http2"], id="over HTTP/2"),
    ],
)  # fmt: skip
def test_a_large_upload_to_a_denied_host_is_answered_at_once(
    scene: Scene, sparse: Callable[[int], Path], path: str, options: list[str]
) -> None:
    size = 300_000_000
    with scene.flat():
        told, body = scene.curl(f"https://denied.test{path}", "--upload-file", str(sparse(size)), *options)

    assert told["http_code"] == 403, told
    assert json.loads(body)["reason"] == "rule_deny"
    sent = told["size_upload"]
    assert isinstance(sent, int) and sent < 20 * MIB, "curl stops once it has its answer, long before the end"
    scene.sidecar.event("request_denied", path=path)


@pytest.mark.parametrize("framing", ["Content-Length: 300000000", "Transfer-Encoding: chunked"])
def test_a_client_that_sends_on_regardless_has_its_answer_first_and_is_cut_off(scene: Scene, framing: str) -> None:
    size, piece = 300_000_000, b"\0" * 65_536
    framed = b"10000\r\n" + piece + b"\r\n" if "chunked" in framing else piece
    sent = 0
    with scene.flat(), secure(scene.sidecar, "denied.test:443") as sock:
        got = ask(sock, get("denied.test", "/regardless", framing, method="POST"))  # not a byte of the body yet
        assert (got.status, got.reason) == (403, "rule_deny")
        with pytest.raises(OSError):
            while sent < size:
                sock.sendall(framed)
                sent += len(piece)

    assert sent < size / 2


@pytest.mark.parametrize("expect", ["Expect:", "Expect: 100-continue"])
def test_a_large_upload_to_an_allowed_host_arrives_whole(
    scene: Scene, sparse: Callable[[int], Path], expect: str
) -> None:
    size, before = 100_000_000, scene.seen.body_bytes
    url = f"https://allowed.test:{scene.port}/whole/{len(expect)}"
    with scene.flat():
        told, _ = scene.curl(url, "--upload-file", str(sparse(size)), "--header", expect)

    assert told["http_code"] == 200
    assert scene.seen.body_bytes - before == size
    assert scene.sidecar.event("request_closed", path=f"/whole/{len(expect)}")["bytes_out"] == size


def test_an_upload_over_http_2_arrives_whole(scene: Scene, sparse: Callable[[int], Path]) -> None:
    size, before = 30_000_000, scene.seen_http2.body_bytes
    with scene.flat():
        told, _ = scene.curl(f"https://allowed.test:{scene.port_http2}/up", "--upload-file", str(sparse(size)))

    assert (told["http_code"], told["http_version"]) == (200, "2")
    assert scene.seen_http2.body_bytes - before == size


def test_a_client_that_expects_100_continue_gets_it_before_its_body(scene: Scene) -> None:
    authority = f"allowed.test:{scene.port}"
    before = scene.seen.body_bytes
    with secure(scene.sidecar, authority) as sock:
        sock.sendall(get(authority, "/continue", "Expect: 100-continue", "Content-Length: 4", method="POST"))
        assert sock.recv(1024).startswith(b"HTTP/1.1 100 ")
        got = ask(sock, b"body")

    assert got.status == 200
    assert scene.seen.body_bytes - before == 4


def test_a_chunked_upload_arrives_whole(scene: Scene) -> None:
    authority = f"allowed.test:{scene.port}"
    before = scene.seen.body_bytes
    with secure(scene.sidecar, authority) as sock:
        got = ask(
            sock,
            get(authority, "/chunked", "Transfer-Encoding: chunked", method="POST")
            + b"5\r\nhello\r\n6;note=x\r\n world\r\n0\r\n\r\n",
        )

    assert got.status == 200
    assert scene.seen.body_bytes - before == 11


def test_server_sent_events_arrive_as_they_are_sent_over_http_1(scene: Scene) -> None:
    scene.seen.release.clear()
    authority = f"allowed.test:{scene.port}"
    with secure(scene.sidecar, authority) as sock:
        sock.sendall(get(authority, "/events"))
        _read_until(sock, b"data: first")
        scene.seen.release.set()  # only now is the second one sent
        _read_until(sock, b"data: second")


def test_server_sent_events_arrive_as_they_are_sent_over_http_2(scene: Scene) -> None:
    scene.seen_http2.release.clear()
    with secure(scene.sidecar, f"allowed.test:{scene.port_http2}", alpn=("h2",)) as sock:
        client = Http2Client(sock)
        stream = client.open(f"allowed.test:{scene.port_http2}", "/events")
        seen = b""
        while b"first" not in seen:
            seen += b"".join(getattr(event, "data", None) or b"" for event in client.read())
        scene.seen_http2.release.set()
        rest = client.finish(stream)

    assert rest is not None and rest.body == b"data: second\n\n"


def _read_until(sock: socket.socket, wanted: bytes) -> None:
    seen = b""
    while wanted not in seen:
        data = sock.recv(4096)
        assert data, seen
        seen += data


def test_a_slow_reader_holds_the_upstream_back(scene: Scene) -> None:
    size = 400 * MIB
    authority = f"allowed.test:{scene.port}"
    before = scene.seen.sent_bytes
    with scene.flat(), secure(scene.sidecar, authority) as sock:
        sock.sendall(get(authority, f"/bytes/{size}"))
        assert sock.recv(1000)
        sent = _stands_still(lambda: scene.seen.sent_bytes - before)
        assert sent < size / 4

    assert scene.sidecar.event("request_failed", path=f"/bytes/{size}")["reason"] == "client_disconnected"


def _stands_still(look: Callable[[], int], seconds: float = 0.5) -> int:
    """The value once it hasn't changed for some time."""
    last, since = look(), time.monotonic()

    def still() -> bool:
        nonlocal last, since
        if (now := look()) != last:
            last, since = now, time.monotonic()
        return time.monotonic() - since > seconds

    until(still, "standstill")
    return last


def test_a_client_that_floods_behind_its_request_is_held_back(scene: Scene) -> None:
    scene.seen.release.clear()
    authority, piece = f"allowed.test:{scene.port}", b"\0" * 65_536
    with scene.flat(), secure(scene.sidecar, authority) as sock:
        sock.sendall(get(authority, "/hold"))
        scene.sidecar.event("request_allowed", path="/hold")
        _flood(sock, piece, 200 * MIB)
        scene.seen.release.set()


def test_a_header_without_end_is_not_kept(scene: Scene) -> None:
    with scene.flat(), secure(scene.sidecar, "denied.test:443") as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nHost: denied.test\r\nX: ")
        _flood(sock, b"x" * 65_536, 200 * MIB)


def _flood(sock: ssl.SSLSocket, piece: bytes, size: int) -> None:
    """Send as much as the peer takes: until it hangs up, or takes no more for a second."""
    sock.settimeout(1)
    try:
        for _ in range(0, size, len(piece)):
            sock.sendall(piece)
    except OSError:
        return


def test_a_websocket_echoes_and_its_bytes_are_counted(scene: Scene) -> None:
    async def talk() -> list[str]:
        async with aiohttp.ClientSession() as session:
            url = f"wss://allowed.test:{scene.port}/ws"
            async with session.ws_connect(url, proxy=scene.sidecar.proxy, ssl=trusting(scene.sidecar)) as socket:
                heard = []
                for text in ("hello", "x" * 10_000):
                    await socket.send_str(text)
                    heard.append((await socket.receive_str(timeout=SECONDS))[:5])
                return heard

    assert asyncio.run(talk()) == ["hello", "xxxxx"]
    closed = scene.sidecar.event("request_closed", path="/ws")
    assert (closed["status"], closed["bytes_out"], closed["bytes_in"]) == (101, 10_005, 10_005)


# What aiohttp's server can't say: a response in raw HTTP/1.1, once per connection.
@contextmanager
def saying(context: ssl.SSLContext, response: bytes) -> Iterator[tuple[int, list[bytes]]]:
    heard: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    sock, _ = listener.accept()
                    with context.wrap_socket(sock, server_side=True) as secured:
                        secured.settimeout(SECONDS)
                        heard.append(_request(secured))
                        secured.sendall(response)
                except OSError:
                    if listener.fileno() < 0:
                        return

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield listener.getsockname()[1], heard
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            listener.close()
            thread.join(SECONDS)


def _request(sock: ssl.SSLSocket) -> bytes:
    seen = b""
    while b"\r\n\r\n" not in seen or (b"Transfer-Encoding" in seen and b"\r\n0\r\n" not in seen):
        if not (data := sock.recv(65_536)):
            break
        seen += data
    return seen


EARLY_HINTS = b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>\r\n\r\n"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n"


@pytest.mark.parametrize(
    "response",
    [
        pytest.param(CHUNKED + b"\r\n5\r\nhello\r\n0\r\n\r\n", id="chunked"),
        pytest.param(CHUNKED + b"Trailer: X-Sum\r\n\r\n5\r\nhello\r\n0\r\nX-Sum: 1\r\n\r\n", id="with trailers"),
        pytest.param(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhello", id="until the connection ends"),
        pytest.param(b"HTTP/1.0 200 OK\r\n\r\nhello", id="HTTP/1.0"),
        pytest.param(EARLY_HINTS + b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", id="after early hints"),
    ],
)  # fmt: skip
def test_a_response_of_any_framing_arrives_whole(scene: Scene, response: bytes, request: pytest.FixtureRequest) -> None:
    path = f"/framing/{request.node.callspec.id.replace(' ', '-')}"
    with (
        saying(scene.root.context("allowed.test"), response) as (port, _),
        secure(scene.sidecar, f"allowed.test:{port}") as sock,
    ):
        got = ask(sock, get(f"allowed.test:{port}", path))

    assert (got.status, got.body) == (200, b"hello")
    closed = scene.sidecar.event("request_closed", path=path)
    assert (closed["status"], closed["bytes_in"]) == (200, 5)


def test_an_upload_with_trailers_arrives(scene: Scene) -> None:
    said = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
    with (
        saying(scene.root.context("allowed.test"), said) as (port, heard),
        secure(scene.sidecar, f"allowed.test:{port}") as sock,
    ):
        head = get(f"allowed.test:{port}", "/trailers", "Transfer-Encoding: chunked", method="POST")
        got = ask(sock, head + b"5\r\nhello\r\n0\r\nX-Sum: 1\r\n\r\n")

    assert got.status == 200
    assert b"hello" in heard[0]


def test_an_upstream_whose_head_has_no_end_is_given_up(scene: Scene) -> None:
    with (
        scene.flat(),
        saying(scene.root.context("allowed.test"), b"HTTP/1.1 200 OK\r\nX: " + b"x" * 64 * MIB) as (port, _),
        secure(scene.sidecar, f"allowed.test:{port}") as sock,
    ):
        got = ask(sock, get(f"allowed.test:{port}", "/endless"))

    assert got.status == 502
    assert scene.sidecar.event("request_failed", path="/endless")["reason"] == "upstream_protocol"
