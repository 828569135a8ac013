"""``--upstream-proxy``: everything that is allowed goes through that proxy, and nothing that isn't reaches it."""

import asyncio
import ssl
import threading
from base64 import b64encode
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import uvloop

from addons.tunnel import context_for, dial_proxy
from sidecar.hosts import parse_authority
from sidecar.upstream_proxy import parse_upstream_proxy
from tests.live.sidecars import Sidecar, running
from tests.live.upstreams import Root, Seen, serving
from tests.live.wire import Http2Client, ask, dial, get, secure, tunnel

pytestmark = pytest.mark.live

PASSWORD = "hunter2"
POLICY = """
version: 1
default: allow
rules:
  - deny: ["denied.test"]
  - passthrough: ["pass.test"]
    ports: [{port}]
"""


class Proxy:
    """
    A CONNECT proxy: every name is 127.0.0.1 to it. Some names it treats on their own: ``refused.test`` 403,
    ``away.test`` 502, ``garbage.test`` no HTTP, ``hangup.test`` nothing.
    """

    def __init__(self, authorization: str | None) -> None:
        self.asked: list[str] = []
        self._authorization = authorization

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self._serve(reader, writer)
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request, *headers = (await reader.readuntil(b"\r\n\r\n")).decode().splitlines()
        self.asked.append(request)
        method, authority, _ = request.split()
        assert method == "CONNECT"
        host, _, port = authority.rpartition(":")
        special = {
            "refused.test": b"HTTP/1.1 403 Forbidden by the company\r\n\r\n",
            "away.test": b"HTTP/1.1 502 Bad gateway\r\n\r\n",
            "garbage.test": b"220 mail.test ESMTP\r\n\r\n",
            "hangup.test": b"",
        }
        if self._authorization is not None and f"Proxy-Authorization: {self._authorization}" not in headers:
            writer.write(b"HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic\r\n\r\n")
        elif host in special:
            writer.write(special[host])
        else:
            upstream, out = await asyncio.open_connection("127.0.0.1", int(port))
            writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            await asyncio.gather(_copy(reader, out), _copy(upstream, writer))
        await writer.drain()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
    finally:
        writer.close()


@contextmanager
def proxying(context: ssl.SSLContext | None = None, authorization: str | None = None) -> Iterator[tuple[int, Proxy]]:
    """A proxy on a free port of loopback, in a thread of its own."""
    proxy, started, loop = Proxy(authorization), threading.Event(), asyncio.new_event_loop()
    stop, port = asyncio.Event(), 0

    async def main() -> None:
        nonlocal port
        server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0, ssl=context)
        port = server.sockets[0].getsockname()[1]
        started.set()
        await stop.wait()
        server.close()
        left = asyncio.all_tasks() - {asyncio.current_task()}
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)

    thread = threading.Thread(target=loop.run_until_complete, args=(main(),), daemon=True)
    thread.start()
    assert started.wait(10)
    try:
        yield port, proxy
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(10)
        loop.close()


@dataclass(frozen=True)
class Scene:
    sidecar: Sidecar
    proxy: Proxy
    tls: int
    http2: int
    plain: int
    seen: Seen
    seen_http2: Seen
    seen_plain: Seen

    def asked(self, authority: str) -> bool:
        return f"CONNECT {authority} HTTP/1.1" in self.proxy.asked

    def get(self, host: str, path: str = "/") -> Any:
        with secure(self.sidecar, f"{host}:{self.tls}") as sock:
            return ask(sock, get(f"{host}:{self.tls}", path))


@pytest.fixture(scope="module", params=["http", "https"])
def scene(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """Plain to a proxy that wants a password, or by TLS to one that wants none."""
    scheme: str = request.param
    folder: Path = tmp_path_factory.mktemp("upstream-proxy")
    root = Root(folder)
    (folder / "credentials").write_text(f"user:{PASSWORD}\n")
    arguments = ["--upstream-ca", str(root.pem), "--resolve", "direct.test:127.0.0.1", "--no-proxy", "direct.test"]
    authorization = None
    if scheme == "http":
        arguments += ["--upstream-proxy-credentials", str(folder / "credentials")]
        authorization = "Basic " + b64encode(f"user:{PASSWORD}".encode()).decode()
    names = ("up.test", "pass.test", "direct.test", "denied.test")
    with ExitStack() as stack:
        tls, seen = stack.enter_context(serving(root.context(*names)))
        http2, seen_http2 = stack.enter_context(serving(root.context(*names, alpn=("h2",)), http2=True))
        plain, seen_plain = stack.enter_context(serving(None))
        context = root.context("proxy.test") if scheme == "https" else None
        port, proxy = stack.enter_context(proxying(context, authorization))
        arguments += ["--upstream-proxy", f"{scheme}://proxy.test:{port}", "--resolve", "proxy.test:127.0.0.1"]
        policy = POLICY.format(port=tls)
        sidecar = stack.enter_context(running(folder / "sidecar", policy, *arguments))
        yield Scene(sidecar, proxy, tls, http2, plain, seen, seen_http2, seen_plain)
    said = "".join(path.read_text() for path in (folder / "sidecar").glob("*") if path.is_file())
    assert PASSWORD not in said
    assert b64encode(f"user:{PASSWORD}".encode()).decode() not in said


def test_https_goes_through_it_and_is_verified_end_to_end(scene: Scene) -> None:
    got = scene.get("up.test", "/h1")

    assert (got.status, got.body) == (200, f"hello from up.test:{scene.tls}\n".encode())
    assert scene.asked(f"up.test:{scene.tls}")
    closed = scene.sidecar.event("request_closed", path="/h1")
    assert closed["upstream_address"].startswith("127.0.0.1:")
    assert not closed["upstream_address"].endswith(f":{scene.tls}"), "the peer is the proxy"
    assert not any(name.lower().startswith("proxy-") for name in scene.seen.requests[-1][2])


def test_http2_goes_through_it(scene: Scene) -> None:
    with secure(scene.sidecar, f"up.test:{scene.http2}", alpn=["h2"]) as sock:
        got = Http2Client(sock).ask(f"up.test:{scene.http2}", "/bytes/1000")

    assert got is not None
    assert (got.status, len(got.body)) == (200, 1000)
    assert scene.asked(f"up.test:{scene.http2}")


def test_plain_http_goes_through_it_by_connect(scene: Scene) -> None:
    with dial(scene.sidecar) as sock:
        got = ask(sock, get(f"up.test:{scene.plain}", f"http://up.test:{scene.plain}/plain"))

    assert got.status == 200
    assert scene.asked(f"up.test:{scene.plain}")
    assert [path for _, path, _ in scene.seen_plain.requests] == ["/plain"]


def test_passthrough_goes_through_it(scene: Scene, tmp_path: Path) -> None:
    trusts_upstream = ssl.create_default_context(cafile=str(scene.sidecar.trust.parent.parent / "upstream-root.pem"))
    trusts_upstream.verify_flags &= ~ssl.VERIFY_X509_STRICT
    sock = tunnel(scene.sidecar, f"pass.test:{scene.tls}")
    with trusts_upstream.wrap_socket(sock, server_hostname="pass.test") as tls:
        got = ask(tls, get(f"pass.test:{scene.tls}", "/passed"))

    assert got.status == 200
    assert scene.asked(f"pass.test:{scene.tls}")
    scene.sidecar.event("connection_closed", host="pass.test", protocol="passthrough")


def test_a_denied_name_never_reaches_it(scene: Scene) -> None:
    assert scene.get("denied.test").reason == "rule_deny"
    assert not any("denied.test" in line for line in scene.proxy.asked)


def test_another_name_inside_never_reaches_it(scene: Scene) -> None:
    with secure(scene.sidecar, f"up.test:{scene.tls}") as sock:
        got = ask(sock, get(f"smuggled.test:{scene.tls}"))
    assert got.reason == "identity_mismatch"
    assert not any("smuggled.test" in line for line in scene.proxy.asked)


@pytest.mark.parametrize("host", ["10.1.2.3", "localhost"])
def test_a_private_address_is_refused_here_and_not_left_to_the_proxy(scene: Scene, host: str) -> None:
    got = scene.get(host)
    assert got.reason == "private_address", got
    assert not any(host in line for line in scene.proxy.asked)


def test_no_proxy_is_dialled_directly_and_guarded(scene: Scene) -> None:
    got = scene.get("direct.test")
    assert got.reason == "private_address", "its address is seen, as without a proxy"
    assert not any("direct.test" in line for line in scene.proxy.asked)


@pytest.mark.parametrize(
    ("host", "reason", "says"),
    [
        pytest.param("refused.test", "upstream_proxy", "refuses CONNECT", id="it refuses"),
        pytest.param("away.test", "upstream_unreachable", "it says 502 Bad gateway", id="it can't reach the upstream"),
        pytest.param("garbage.test", "upstream_proxy", "doesn't answer CONNECT with HTTP", id="it's no HTTP proxy"),
        pytest.param("hangup.test", "upstream_proxy", "closed the connection instead", id="it hangs up"),
    ],
)
def test_what_the_proxy_says_is_told(scene: Scene, host: str, reason: str, says: str) -> None:
    got = scene.get(host, f"/{host}")

    assert (got.status, got.reason) == (502, reason), got
    assert says in got.problem["detail"]
    assert scene.sidecar.event("request_failed", path=f"/{host}")["reason"] == reason


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        pytest.param("no credentials", "wants credentials (407", id="it wants credentials, and there are none"),
        pytest.param("another root", "fails to prove itself by TLS", id="its certificate isn't of a trusted root"),
        pytest.param("nobody", "can't be reached", id="nobody is there"),
    ],
)
def test_a_proxy_that_doesn_t_work_is_told(tmp_path: Path, kind: str, says: str) -> None:
    root = Root(tmp_path)
    (tmp_path / "other").mkdir()
    with ExitStack() as stack:
        match kind:
            case "no credentials":
                port, _ = stack.enter_context(proxying(authorization="Basic abc"))
                url = f"http://127.0.0.1:{port}"
            case "another root":
                port, _ = stack.enter_context(proxying(Root(tmp_path / "other").context("127.0.0.1")))
                url = f"https://127.0.0.1:{port}"
            case _:
                url = "http://127.0.0.1:1"
        arguments = ("--upstream-ca", str(root.pem), "--upstream-proxy", url)
        policy = POLICY.format(port=1)
        sidecar = stack.enter_context(running(tmp_path / "sidecar", policy, *arguments))
        with secure(sidecar, "up.test:1") as sock:
            got = ask(sock, get("up.test:1"))

        assert (got.status, got.reason) == (502, "upstream_proxy"), got
        assert says in got.problem["detail"]


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_what_comes_with_the_proxy_s_answer_isn_t_lost(tmp_path: Path, scheme: str, run: Any) -> None:
    root = Root(tmp_path)

    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\n\r\nSSH-2.0-greeting\r\n")
        writer.write((await reader.readline()).upper())
        writer.close()

    async def scene() -> bytes:
        loop = asyncio.get_running_loop()
        server = await asyncio.start_server(
            greet, "127.0.0.1", 0, ssl=root.context("127.0.0.1") if scheme == "https" else None
        )
        proxy = parse_upstream_proxy(f"{scheme}://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        tls = context_for(proxy, lambda context: context.load_verify_locations(str(root.pem)))
        assert proxy.host.address is not None
        target = parse_authority("ssh.test:22")
        connect = await dial_proxy(loop.create_connection, proxy, proxy.host.address, tls, target)
        reader = asyncio.StreamReader()
        transport, protocol = await connect.through(lambda: asyncio.StreamReaderProtocol(reader))
        writer = asyncio.StreamWriter(transport, protocol, reader, loop)
        async with asyncio.timeout(10):
            first = await reader.readline()
            writer.write(b"after\n")
            writer.write_eof()
            rest = await reader.read()
        writer.close()
        server.close()
        return first + rest

    assert run(scene()) == b"SSH-2.0-greeting\r\nAFTER\n"
