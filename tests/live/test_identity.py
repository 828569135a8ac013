"""One proven destination per request: clients that name two hosts are refused, and nothing reaches either upstream."""

import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.live.sidecars import Sidecar, running
from tests.live.upstreams import Root, Seen, serving
from tests.live.wire import Answer, Http2Client, ask, dial, get, secure, trusting, tunnel

pytestmark = pytest.mark.live

A, B = "a.test", "b.test"  # both allowed: what is refused here is refused for the contradiction alone

POLICY = """
version: 1
rules:
  - allow: ["a.test", "b.test", "127.0.0.1"]
    ports: [80, 443, {ports}]
network:
  allow_addresses: ["127.0.0.1"]
"""


@dataclass(frozen=True)
class Scene:
    sidecar: Sidecar
    root: Root
    tls: int
    address: int  # where the upstream's certificate is for 127.0.0.1
    http2: int
    plain: int
    seen: tuple[Seen, ...]

    def reached(self, path: str) -> bool:
        """Whether any upstream has seen a request with this path."""
        return any(path == got.partition("?")[0] for seen in self.seen for _, got, _ in seen.requests)

    def asked_inside(self, request: bytes, *, sni: str = A) -> Answer:
        with secure(self.sidecar, f"{A}:{self.tls}", sni=sni) as sock:
            return ask(sock, request)


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    folder: Path = tmp_path_factory.mktemp("identity")
    root = Root(folder)
    with (
        serving(root.context(A, B)) as (tls, seen_tls),
        serving(root.context("127.0.0.1")) as (address, seen_address),
        serving(root.context(A, B, alpn=("h2",)), http2=True) as (http2, seen_http2),
        serving(None) as (plain, seen_plain),
        running(
            folder / "sidecar",
            POLICY.format(ports=f"{tls}, {address}, {http2}, {plain}"),
            *("--upstream-ca", str(root.pem), "--resolve", f"{A}:127.0.0.1", "--resolve", f"{B}:127.0.0.1"),
        ) as sidecar,
    ):
        yield Scene(sidecar, root, tls, address, http2, plain, (seen_tls, seen_address, seen_http2, seen_plain))


def refused(scene: Scene, got: Answer | None, path: str, status: int, reason: str) -> None:
    """The answer says so, the events say so, and no upstream has heard of it."""
    assert got is not None
    assert (got.status, got.reason) == (status, reason), got
    denied = scene.sidecar.event("request_denied", path=path)
    assert (denied["reason"], denied["status"]) == (reason, status)
    assert len(scene.sidecar.events("identity_mismatch", request_id=denied["request_id"])) == (
        1 if reason == "identity_mismatch" else 0
    )
    assert not scene.reached(path)


def test_connect_and_sni_name_two_hosts(scene: Scene) -> None:
    before = scene.root.connections
    got = scene.asked_inside(get(f"{A}:{scene.tls}", "/sni"), sni=B)

    refused(scene, got, "/sni", 403, "identity_mismatch")
    assert scene.root.connections == before


def test_connect_and_its_own_host_header_name_two_hosts(scene: Scene) -> None:
    before = scene.root.connections
    with secure(scene.sidecar, f"{A}:{scene.tls}", f"Host: {B}:{scene.tls}") as sock:
        got = ask(sock, get(f"{A}:{scene.tls}", "/connect-host"))

    refused(scene, got, "/connect-host", 421, "identity_mismatch")
    assert scene.root.connections == before


def test_a_connect_with_two_host_headers_is_malformed(scene: Scene) -> None:
    with dial(scene.sidecar) as sock:
        got = ask(sock, f"CONNECT {A}:443 HTTP/1.1\r\nHost: {A}:443\r\nHost: {A}:443\r\n\r\n".encode())
    assert (got.status, got.reason) == (400, "malformed_request")


INSIDE = [
    pytest.param(["Host: {b}"], "", 421, "identity_mismatch", id="another Host"),
    pytest.param(["Host: {b}:{port}"], "", 421, "identity_mismatch", id="another Host with the right port"),
    pytest.param(["Host: {a}:1"], "", 421, "identity_mismatch", id="another port"),
    pytest.param(["Host: {a}:443"], "", 421, "identity_mismatch", id="the usual port where the connection has another"),
    pytest.param(["Host: {a}:{port}", "Host: {b}"], "", 400, "malformed_request", id="two Hosts that differ"),
    pytest.param(["Host: {a}:{port}", "Host: {a}:{port}"], "", 400, "malformed_request", id="two Hosts that agree"),
    pytest.param(["Host: {a}:{port}"], "https://{b}:{port}", 421, "identity_mismatch", id="absolute-form wrong"),
    pytest.param(["Host: {b}"], "https://{a}:{port}", 421, "identity_mismatch", id="absolute-form right"),
    pytest.param(["Host: 127.0.0.1:{port}"], "", 421, "identity_mismatch", id="the address behind the name"),
    pytest.param(["Host: user@{a}:{port}"], "", 400, "malformed_request", id="user information"),
    pytest.param(["Host: {a}:{port}, {b}"], "", 400, "malformed_request", id="a list of hosts"),
    pytest.param(["Host: {a}.{b}"], "", 421, "identity_mismatch", id="a name below the other"),
    pytest.param(["Host: "], "", 400, "malformed_request", id="an empty Host"),
    pytest.param([], "", 400, "malformed_request", id="HTTP/1.1 without Host"),
    pytest.param(["Host: {a}:{port}", "X-Note: a\rb"], "", 400, "malformed_request", id="a bare CR in a value"),
    pytest.param(["Host: {a}:{port}", "X-Note: a\x00b"], "", 400, "malformed_request", id="a NUL in a value"),
    pytest.param(["Host: {a}:{port}", "X-Note: a\x7fb"], "", 400, "malformed_request", id="a DEL in a value"),
    pytest.param(["Host: {a}\x01"], "", 400, "malformed_request", id="a control byte in the Host"),
]  # fmt: skip


@pytest.mark.parametrize(("lines", "form", "status", "reason"), INSIDE)
def test_inside_a_tunnel_refused(
    scene: Scene, lines: list[str], form: str, status: int, reason: str, request: pytest.FixtureRequest
) -> None:
    path = f"/inside/{[p.id for p in INSIDE].index(request.node.callspec.id)}"
    names = {"a": A, "b": B, "port": str(scene.tls)}
    text = "\r\n".join([f"GET {form}{path} HTTP/1.1", *lines]).format(**names)

    got = scene.asked_inside(text.encode("latin-1") + b"\r\n\r\n")

    refused(scene, got, path, status, reason)


FINE = [
    pytest.param("GET {path} HTTP/1.1", ["Host: {a}:{port}"], id="the plain case"),
    pytest.param("GET {path} HTTP/1.1", ["Host: {a}"], id="no port in Host"),
    pytest.param("GET {path} HTTP/1.1", ["Host: A.TEST:{port}"], id="upper case"),
    pytest.param("GET {path} HTTP/1.1", ["Host: a.test.:{port}"], id="a trailing dot"),
    pytest.param("GET {path} HTTP/1.0", [], id="HTTP/1.0 without Host"),
    pytest.param("GET {path} HTTP/1.0", ["Host: {a}:{port}"], id="HTTP/1.0 with Host"),
    pytest.param("GET https://{a}:{port}{path} HTTP/1.1", ["Host: {a}:{port}"], id="absolute-form that agrees"),
    pytest.param("GET {path} HTTP/1.1", ["Host: {a}:{port}", "X-Forwarded-Host: {b}"], id="X-Forwarded-Host"),
    pytest.param("GET {path} HTTP/1.1", ["Host: {a}:{port}", "Forwarded: host={b}"], id="Forwarded"),
    pytest.param("GET {path} HTTP/1.1", ["Host: {a}:{port}", "X-Note: a\tb"], id="a tab in a value"),
]  # fmt: skip


@pytest.mark.parametrize(("line", "headers"), FINE)
def test_inside_a_tunnel_fine(scene: Scene, line: str, headers: list[str], request: pytest.FixtureRequest) -> None:
    path = f"/fine/{[p.id for p in FINE].index(request.node.callspec.id)}"
    names = {"a": A, "b": B, "port": str(scene.tls), "path": path}
    text = "\r\n".join([line, *headers, "Connection: close"]).format(**names)

    got = scene.asked_inside(text.encode() + b"\r\n\r\n")

    assert got.status == 200, got
    assert scene.reached(path)
    assert scene.sidecar.event("request_closed", path=path)["host"] == A


def test_the_second_request_of_a_connection_may_not_name_another_host(scene: Scene) -> None:
    right = f"{A}:{scene.tls}"
    with secure(scene.sidecar, right) as sock:
        assert ask(sock, get(right, "/keep/1")).status == 200
        got = ask(sock, get(B, "/keep/2"))
        refused(scene, got, "/keep/2", 421, "identity_mismatch")
        # The connection goes on: the refusal was of that one request.
        assert ask(sock, get(right, "/keep/3")).status == 200

    first = scene.sidecar.event("request_closed", path="/keep/1")
    assert scene.sidecar.event("request_denied", path="/keep/2")["connection_id"] == first["connection_id"]


def test_a_pipelined_request_may_not_name_another_host(scene: Scene) -> None:
    right = f"{A}:{scene.tls}"
    with secure(scene.sidecar, right) as sock:
        assert ask(sock, get(right, "/pipe/1") + get(B, "/pipe/2")).status == 200
        scene.sidecar.event("request_denied", path="/pipe/2", reason="identity_mismatch")

    assert not scene.reached("/pipe/2")


@pytest.mark.parametrize(
    ("authority", "headers", "status", "reason"),
    [
        pytest.param("b.test:{port}", (), 421, "identity_mismatch", id="another authority"),
        pytest.param("a.test:1", (), 421, "identity_mismatch", id="another port"),
        pytest.param("", (("host", "b.test"),), 421, "identity_mismatch", id="host alone, and wrong"),
        pytest.param("a.test:{port}", (("host", "b.test"),), 421, "identity_mismatch", id="authority and host differ"),
        pytest.param("", (("host", "a.test"), ("host", "b.test")), 400, "malformed_request", id="two hosts"),
    ],
)
def test_a_later_stream_may_not_name_another_host(
    scene: Scene,
    authority: str,
    headers: tuple[tuple[str, str], ...],
    status: int,
    reason: str,
    request: pytest.FixtureRequest,
) -> None:
    right, path = f"{A}:{scene.http2}", f"/stream/{request.node.callspec.id.replace(' ', '-')}"
    with secure(scene.sidecar, right, alpn=("h2",)) as sock:
        client = Http2Client(sock)
        assert (first := client.ask(right, "/first")) is not None and first.status == 200
        got = client.ask(authority.format(port=scene.http2), path, *headers)
        refused(scene, got, path, status, reason)
        assert (last := client.ask(right, "/last")) is not None and last.status == 200


@pytest.mark.parametrize(
    ("authority", "headers"),
    [
        pytest.param("u@a.test:{port}", [], id="user information"),
        pytest.param("a.test:{port}", [("x-note", "a\r\nb: c")], id="a line break in a value"),
    ],
)
def test_a_malformed_stream_ends_its_http2_connection(
    scene: Scene, authority: str, headers: list[tuple[str, str]], request: pytest.FixtureRequest
) -> None:
    right, path = f"{A}:{scene.http2}", f"/malformed/{request.node.callspec.id.replace(' ', '-')}"
    with secure(scene.sidecar, right, alpn=("h2",)) as sock:
        client = Http2Client(sock)
        assert (first := client.ask(right, f"{path}/first")) is not None and first.status == 200
        got = client.ask(authority.format(port=scene.http2), path, *headers)

    assert got is None or got.status == 400  # RFC 9113, section 8.1.1: a connection or a stream error, or a 400
    scene.sidecar.event("request_closed", path=f"{path}/first")
    assert not scene.reached(path)


@pytest.mark.parametrize(
    ("target", "host", "status", "reason"),
    [
        pytest.param("http://a.test:{port}", "b.test:{port}", 421, "identity_mismatch", id="another Host"),
        pytest.param("http://a.test:{port}", "a.test:1", 421, "identity_mismatch", id="another port"),
        pytest.param("http://u@a.test:{port}", "a.test:{port}", 400, "malformed_request", id="user information"),
    ],
)
def test_a_plain_request_to_the_proxy_names_one_host(
    scene: Scene, target: str, host: str, status: int, reason: str, request: pytest.FixtureRequest
) -> None:
    path = f"/plain/{request.node.callspec.id.replace(' ', '-')}"
    text = f"GET {target}{path} HTTP/1.1\r\nHost: {host}\r\n\r\n".format(port=scene.plain)
    with dial(scene.sidecar) as sock:
        got = ask(sock, text.encode())

    assert got.status == status
    assert not scene.reached(path)
    if got.reason is not None:
        assert got.reason == reason


def test_a_plain_request_to_the_proxy_is_forwarded(scene: Scene) -> None:
    right = f"{A}:{scene.plain}"
    with dial(scene.sidecar) as sock:
        got = ask(sock, f"GET http://{right}/plain/fine HTTP/1.1\r\nHost: {right}\r\n\r\n".encode())

    assert (got.status, got.body) == (200, f"hello from {right}\n".encode())


@pytest.mark.parametrize(
    ("connect", "sni"),
    [
        pytest.param("A.TEST:{port}", "a.test", id="CONNECT in upper case"),
        pytest.param("a.test.:{port}", "a.test", id="CONNECT with a trailing dot"),
        pytest.param("a.test:{port}", "A.Test", id="SNI in mixed case"),
    ],
)
def test_spellings_of_one_name_are_one_name(scene: Scene, connect: str, sni: str) -> None:
    with secure(scene.sidecar, connect.format(port=scene.tls), sni=sni) as sock:
        assert ask(sock, get(f"{A}:{scene.tls}", "/spelling")).status == 200


def test_an_address_may_be_the_destination_where_the_policy_says_so(scene: Scene) -> None:
    right = f"127.0.0.1:{scene.address}"
    with secure(scene.sidecar, right, sni="127.0.0.1") as sock:
        assert ask(sock, get(right, "/address")).status == 200


def test_a_connection_to_an_address_may_not_name_a_host(scene: Scene) -> None:
    with secure(scene.sidecar, f"127.0.0.1:{scene.address}", sni="127.0.0.1") as sock:
        refused(scene, ask(sock, get(A, "/of-address")), "/of-address", 421, "identity_mismatch")


@pytest.mark.parametrize(
    "target",
    ["u@a.test:443", "a.test", "a.test:0", "a.test:99999", "2130706433:443", "0x7f.1:443", "a..test:443", ":443"],
)
def test_a_connect_to_no_valid_authority_is_refused(scene: Scene, target: str) -> None:
    before = scene.root.connections
    with dial(scene.sidecar) as sock:
        got = ask(sock, f"CONNECT {target} HTTP/1.1\r\nHost: a.test\r\n\r\n".encode())

    assert got.status == 400
    assert scene.root.connections == before


def test_without_sni_the_connection_has_the_name(scene: Scene) -> None:
    right = f"{A}:{scene.tls}"
    context = trusting(scene.sidecar)
    context.check_hostname = False
    with context.wrap_socket(tunnel(scene.sidecar, right)) as sock:
        leaf = sock.getpeercert()
        assert leaf is not None and ("DNS", A) in leaf["subjectAltName"]
        assert ask(sock, get(right, "/no-sni")).status == 200
        assert isinstance(sock, ssl.SSLSocket)
