"""Every kind of event, provoked by what a workload does; `running` checks each line, its number and its closing."""

import fcntl
import json
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.live.sidecars import SECONDS, Line, Sidecar, check_lines, make_trust, running
from tests.live.upstreams import Root, Seen, serving
from tests.live.wire import Answer, Http2Client, answer, ask, dial, environment, get, secure, trusting, tunnel

pytestmark = pytest.mark.live

PROTOCOLS = ("HTTP/1.1", "HTTP/2.0")

POLICY = """
version: 1
rules:
  - name: internal
    deny: ["denied.test"]
  - name: pinned
    passthrough: ["pinned.test", "gone.test"]
    ports: [{ports}]
  - name: ours
    allow: ["allowed.test", "closed.test", "other-name.test", "private.test", "nowhere.invalid"]
    ports: [{ports}]
network:
  allow_addresses: ["127.0.0.1"]
"""


@dataclass(frozen=True)
class Scene:
    sidecar: Sidecar
    root: Root
    port: dict[str, int]  # of the upstream that speaks this version
    seen: dict[str, Seen]
    closed: int  # a port where nobody listens

    def ask(self, version: str, host: str, path: str = "/", *, port: int = 0) -> Answer | None:
        """One request through a connection of its own; None if it's cut off before the whole answer."""
        authority = f"{host}:{port or self.port[version]}"
        alpn = "h2" if version == "HTTP/2.0" else "http/1.1"
        with secure(self.sidecar, authority, alpn=(alpn,)) as sock:
            if version == "HTTP/2.0":
                return Http2Client(sock).ask(authority, path)
            try:
                return ask(sock, get(authority, path))
            except OSError:
                return None

    def the(self, name: str, **fields: object) -> Line:
        """The one event of this kind."""
        event = self.sidecar.event(name, **fields)
        assert self.sidecar.events(name, **fields) == [event]
        return event


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    folder = tmp_path_factory.mktemp("events")
    root = Root(folder)
    names = ("allowed.test", "pinned.test", "private.test")
    with (
        serving(root.context(*names)) as (one, seen_one),
        serving(root.context(*names, alpn=("h2",)), http2=True) as (two, seen_two),
        unserved() as closed,
        running(
            folder / "sidecar",
            POLICY.format(ports=f"{one}, {two}, {closed}"),
            *("--event-level", "debug", "--upstream-ca", str(root.pem)),
            *(f for name in (*names, "other-name.test", "closed.test", "gone.test") for f in _resolve(name)),
        ) as sidecar,
    ):
        yield Scene(
            sidecar,
            root,
            dict(zip(PROTOCOLS, (one, two), strict=True)),
            dict(zip(PROTOCOLS, (seen_one, seen_two), strict=True)),
            closed,
        )


def _resolve(name: str) -> tuple[str, str]:
    return "--resolve", f"{name}:{'127.0.0.2' if name == 'private.test' else '127.0.0.1'}"


@contextmanager
def unserved() -> Iterator[int]:
    """A port that is bound but doesn't listen, so that nobody else gets it."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        yield sock.getsockname()[1]


def test_a_session_begins_with_what_it_runs_with(scene: Scene) -> None:
    scene.sidecar.event("policy_loaded")
    started, ca, policy = scene.sidecar.events()[:3]
    assert [line["event"] for line in (started, ca, policy)] == ["session_started", "ca_loaded", "policy_loaded"]
    assert started["session"] == "test-session"
    assert "CN=test-session" in ca["subject"]
    assert ca["chain_length"] == 1
    assert (policy["generation"], policy["rules"], policy["default"]) == (1, 3, "deny")


@pytest.mark.parametrize("version", PROTOCOLS)
def test_an_allowed_request_is_opened_allowed_and_closed(scene: Scene, version: str) -> None:
    path = "/bytes/5000"
    assert (got := scene.ask(version, "allowed.test", f"{path}?token=secret")) is not None
    assert (got.status, len(got.body)) == (200, 5000)

    closed = scene.the("request_closed", path=path, http_version=version)
    request = closed["request_id"]
    assert [line["event"] for line in scene.sidecar.events(request_id=request)] == [
        "request_opened",
        "request_allowed",
        "request_closed",
    ]
    assert (closed["status"], closed["bytes_in"], closed["bytes_out"]) == (200, 5000, 0)
    assert closed["upstream_address"] == f"127.0.0.1:{scene.port[version]}"
    allowed = scene.the("request_allowed", request_id=request)
    assert (allowed["reason"], allowed["rule"], allowed["host"]) == ("rule_allow", "rules[2] 'ours'", "allowed.test")
    assert allowed["policy_hash"] == scene.sidecar.event("policy_loaded")["policy_hash"]
    assert "secret" not in json.dumps(scene.sidecar.events())


@pytest.mark.parametrize("version", PROTOCOLS)
def test_a_denied_request_is_answered_with_the_reason_and_recorded_once(scene: Scene, version: str) -> None:
    path = f"/denied/{version}"
    before = scene.root.connections
    assert (got := scene.ask(version, "denied.test", path, port=443)) is not None

    assert (got.status, got.reason, got.problem["rule"]) == (403, "rule_deny", "rules[0] 'internal'")
    denied = scene.the("request_denied", path=path)
    assert (denied["reason"], denied["rule"], denied["status"], denied["http_version"]) == (
        "rule_deny",
        "rules[0] 'internal'",
        403,
        version,
    )
    assert got.problem["request_id"] == denied["request_id"]
    assert scene.root.connections == before


@pytest.mark.parametrize("version", PROTOCOLS)
def test_an_upstream_that_hangs_up_makes_a_failed_request(scene: Scene, version: str) -> None:
    got = scene.ask(version, "allowed.test", "/drop")

    assert got is None or got.status == 502
    failed = scene.the("request_failed", path="/drop", http_version=version)
    assert failed["reason"] == "upstream_disconnected"


@pytest.mark.parametrize("version", PROTOCOLS)
def test_an_upstream_that_is_not_there_makes_a_failed_request(scene: Scene, version: str) -> None:
    path = f"/closed/{version}"
    assert (got := scene.ask(version, "closed.test", path, port=scene.closed)) is not None

    assert (got.status, got.reason) == (502, "upstream_unreachable")
    assert scene.the("request_failed", path=path)["reason"] == "upstream_unreachable"


def test_a_name_without_address_makes_a_failed_request(scene: Scene) -> None:
    assert (got := scene.ask("HTTP/1.1", "nowhere.invalid", "/unresolved")) is not None

    assert (got.status, got.reason) == (502, "upstream_unresolved")
    assert scene.the("request_failed", path="/unresolved")["reason"] == "upstream_unresolved"


def test_a_name_that_leads_to_a_private_address_is_denied_and_not_dialled(scene: Scene) -> None:
    before = scene.root.connections
    assert (got := scene.ask("HTTP/1.1", "private.test", "/private")) is not None

    assert (got.status, got.reason) == (403, "private_address")
    assert scene.the("request_denied", path="/private")["reason"] == "private_address"
    assert scene.root.connections == before


@pytest.mark.parametrize("version", PROTOCOLS)
def test_an_upstream_with_a_certificate_for_another_name_is_refused(scene: Scene, version: str) -> None:
    path = f"/other-name/{version}"
    assert (got := scene.ask(version, "other-name.test", path)) is not None

    assert (got.status, got.reason) == (502, "upstream_tls")
    failed = scene.the("request_failed", path=path)
    assert failed["reason"] == "upstream_tls"
    tls = scene.the("tls_handshake_failed", connection_id=failed["connection_id"])
    assert (tls["side"], tls["reason"], tls["host"]) == ("server", "tls_upstream_name", "other-name.test")
    assert path not in [seen for _, seen, _ in scene.seen[version].requests]


@pytest.mark.parametrize("alpn", ["h2", "http/1.1"])
def test_a_client_that_does_not_trust_the_ca_makes_a_failed_handshake(scene: Scene, alpn: str) -> None:
    sock = tunnel(scene.sidecar, f"denied.test:{8000 + len(alpn)}")
    with pytest.raises(ssl.SSLCertVerificationError), sock:
        trusting(None, alpn).wrap_socket(sock, server_hostname="denied.test")

    failed = scene.the("tls_handshake_failed", side="client", port=8000 + len(alpn))
    assert (failed["reason"], failed["alert"], failed["suspected"]) == ("tls_client_rejected_ca", "unknown_ca", False)
    assert failed["host"] == failed["sni"] == "denied.test"


@pytest.mark.parametrize("version", PROTOCOLS)
def test_a_request_for_another_name_than_its_connection_is_a_mismatch(scene: Scene, version: str) -> None:
    port = scene.port[version]
    authority, path = f"allowed.test:{port}", f"/mismatch/{version}"
    with secure(scene.sidecar, authority, alpn=("h2" if version == "HTTP/2.0" else "http/1.1",)) as sock:
        if version == "HTTP/2.0":
            got = Http2Client(sock).ask("denied.test", path)
        else:
            got = ask(sock, get("denied.test", path))

    assert got is not None and (got.status, got.reason) == (421, "identity_mismatch")
    denied = scene.the("request_denied", path=path)
    mismatch = scene.the("identity_mismatch", request_id=denied["request_id"])
    assert (mismatch["authority"], mismatch["sni"]) == (authority, "allowed.test")
    assert "denied.test" in mismatch["hosts"]


def test_a_passthrough_connection_is_allowed_and_closed_unopened(scene: Scene) -> None:
    port = scene.port["HTTP/1.1"]
    sock = tunnel(scene.sidecar, f"pinned.test:{port}")
    context = trusting(None, "http/1.1")
    context.load_verify_locations(scene.root.pem)  # the upstream's own certificate reaches the client
    with context.wrap_socket(sock, server_hostname="pinned.test") as secured:
        assert ask(secured, get(f"pinned.test:{port}", "/bytes/100000")).status == 200

    closed = scene.the("connection_closed", host="pinned.test")
    assert (closed["protocol"], closed["reason"], closed["port"]) == ("passthrough", None, port)
    assert closed["bytes_in"] > 100_000
    assert closed["bytes_out"] > 0
    allowed = scene.the("connection_allowed", connection_id=closed["connection_id"])
    assert (allowed["rule"], allowed["sni"], allowed["reason"]) == ("rules[1] 'pinned'", "pinned.test", "rule_allow")
    assert not [
        line for line in scene.sidecar.events(connection_id=closed["connection_id"]) if "request" in line["event"]
    ]


def test_a_passthrough_connection_to_nobody_is_closed_with_the_reason(scene: Scene) -> None:
    sock = tunnel(scene.sidecar, f"gone.test:{scene.closed}")
    with pytest.raises((ssl.SSLError, OSError)), sock:
        trusting(None).wrap_socket(sock, server_hostname="gone.test")

    closed = scene.the("connection_closed", host="gone.test")
    assert (closed["protocol"], closed["reason"]) == ("passthrough", "upstream_unreachable")


def test_what_is_neither_tls_nor_http_is_denied_with_its_first_bytes(scene: Scene) -> None:
    with tunnel(scene.sidecar, "allowed.test:443") as sock:
        sock.sendall(b"\x00\x01SSH?")
        assert sock.recv(1) == b""

    denied = scene.the("connection_denied", reason="not_http", host="allowed.test")
    assert bytes.fromhex(denied["first_bytes"]) == b"\x00\x01SSH?"


def test_a_connection_without_a_byte_is_closed(scene: Scene) -> None:
    known = {line["connection_id"] for line in scene.sidecar.events() if "connection_id" in line}
    dial(scene.sidecar).close()

    closed = scene.sidecar.event("connection_closed", host=None)
    assert closed["connection_id"] not in known
    assert (closed["protocol"], closed["bytes_in"], closed["bytes_out"]) == ("none", 0, 0)


def test_a_request_that_the_workload_gives_up_is_failed(scene: Scene) -> None:
    authority = f"allowed.test:{scene.port['HTTP/1.1']}"
    with secure(scene.sidecar, authority, alpn=("http/1.1",)) as sock:
        sock.sendall(get(authority, "/hold"))
        scene.sidecar.event("request_allowed", path="/hold")

    assert scene.the("request_failed", path="/hold")["reason"] == "client_disconnected"


# A session whose events go into a pipe, with room for a few lines only.
NARROW = """
import asyncio, signal, sys
from datetime import UTC, datetime
from ipaddress import IPv4Address
from pathlib import Path
from sidecar.events.sinks import StreamSink
from sidecar.policy import load_policy
from sidecar.runtime.engine import serve
from sidecar.runtime.listeners import address_of, bind, explicit
from sidecar.runtime.session import Session, Settings
from sidecar.secrets import load_ca
from sidecar.upstreams.files import load_upstreams
from sidecar.upstreams.roots import RootFiles

async def until():
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await stop.wait()

policy, ca = load_policy(Path(sys.argv[1])), load_ca(Path(sys.argv[2]), datetime.now(UTC))
sink = StreamSink(1, lines=16)
session = Session(
    Settings(policy=policy, upstreams=load_upstreams(policy, RootFiles()), ca=ca, sink=sink, session="narrow")
)
listener = bind(IPv4Address("127.0.0.1"), 0)
try:
    asyncio.run(
        serve(session, [explicit(listener)], listen=[address_of(listener)], until=until, drain_seconds=1)
    )
finally:
    session.close()
"""


def test_events_that_a_slow_reader_misses_are_counted_and_reported(tmp_path: Path) -> None:
    ca, _ = make_trust(tmp_path)
    (tmp_path / "policy.yaml").write_text("version: 1\n")
    command = [sys.executable, "-c", NARROW, str(tmp_path / "policy.yaml"), str(ca)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, env=environment())
    try:
        assert process.stdout is not None
        fcntl.fcntl(process.stdout, fcntl.F_SETPIPE_SZ, 4096)
        lines: list[dict[str, Any]] = [json.loads(process.stdout.readline())]
        port = int(lines[0]["listen"][0].rpartition(":")[2])

        denied = 120  # far more than pipe, the writer's hands and the queue hold
        for _ in range(denied):
            assert _plain_get(port).status == 403  # nobody reads, and no request waits for that
        while lines[-1].get("path") is None or len(lines) < 20:
            lines.append(json.loads(process.stdout.readline()))
        assert _plain_get(port, "/after").status == 403
        while lines[-1].get("path") != "/after":
            lines.append(json.loads(process.stdout.readline()))
        process.send_signal(signal.SIGTERM)
        lines += [json.loads(line) for line in process.stdout]
        assert process.wait(SECONDS) == 0
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()

    check_lines(lines)
    reported = sum(line["count"] for line in lines if line["event"] == "events_dropped")
    written = sum(line["event"] == "request_denied" for line in lines)
    assert reported > 0
    assert written + reported == denied + 1
    assert lines[-1]["summary"]["events_dropped"] == reported


def _plain_get(port: int, path: str = "/") -> Answer:
    with socket.create_connection(("127.0.0.1", port), SECONDS) as sock:
        sock.sendall(
            f"GET http://denied.test{path} HTTP/1.1\r\nHost: denied.test\r\nConnection: close\r\n\r\n".encode()
        )
        return answer(sock)
