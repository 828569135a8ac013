"""The CA ends under a running sidecar, by the test's clock: told ahead, then refused until there is another one."""

import ssl
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from sidecar.pki.rotation import Take
from sidecar.pki.session_ca import SessionCa, issue_session_ca
from sidecar.reasons import RotationReason
from tests.live.inprocess import InProcess, in_process
from tests.live.upstreams import Root, Seen, serving
from tests.live.wire import Http2Client, ask, dial, get, secure, trusting, tunnel

pytestmark = pytest.mark.live

POLICY = """\
version: 1
rules:
  - passthrough: ["pinned.test"]
    ports: ["1-65535"]
  - allow: ["*.test"]
    ports: ["1-65535"]
network: {allow_addresses: ["127.0.0.1"]}
"""
NAMES = ("one.test", "two.test", "pinned.test")
HOUR = timedelta(hours=1)


@dataclass
class Clock:
    now: datetime = field(default_factory=lambda: datetime.now(UTC))

    def __call__(self) -> datetime:
        return self.now


@dataclass
class Scene:
    sidecar: InProcess
    clock: Clock
    ca: SessionCa
    root: Root
    port: int
    seen: Seen
    port_http2: int

    @property
    def one(self) -> str:
        return f"one.test:{self.port}"

    def let(self, left: timedelta) -> None:
        """Time goes by until the CA's end is so far away."""
        self.clock.now = self.ca.not_after - left
        self.sidecar.call(self.sidecar.session.expiry.start)  # what its timer does, at the latest after a minute


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    root, clock = Root(tmp_path), Clock()
    ca = issue_session_ca(common_name="short", now=clock.now)
    with (
        serving(root.context("one.test", "pinned.test")) as (port, seen),
        serving(root.context("two.test", alpn=("h2",)), http2=True) as (port_http2, _),
        in_process(tmp_path, POLICY, upstream_ca=root.pem, names=NAMES, ca=ca, now=clock) as sidecar,
    ):
        yield Scene(sidecar, clock, ca, root, port, seen, port_http2)


def test_the_end_is_told_ahead_and_once(scene: Scene) -> None:
    for left in (7 * HOUR, 6 * HOUR, 5 * HOUR, 2 * HOUR, HOUR / 2, HOUR / 4, timedelta(0), -HOUR):
        scene.let(left)

    told = scene.sidecar.events("ca_expiring")
    assert [event["remaining_seconds"] for event in told] == [6 * 3600, 2 * 3600, 1800]
    assert {event["level"] for event in told} == {"warning"}
    (expired,) = scene.sidecar.events("ca_expired")
    assert expired["level"] == "error"
    assert expired["fingerprint_sha256"] == scene.ca.fingerprint()
    assert datetime.fromisoformat(expired["not_after"]) == scene.ca.not_after


def test_requests_on_connections_that_are_open_are_refused(scene: Scene) -> None:
    two = f"two.test:{scene.port_http2}"
    with secure(scene.sidecar, scene.one) as kept, secure(scene.sidecar, two, alpn=("h2",)) as multiplexed:
        assert ask(kept, get(scene.one)).status == 200
        http2 = Http2Client(multiplexed)
        before = http2.ask(two)
        assert before is not None and before.status == 200
        served = len(scene.seen.requests)

        scene.let(timedelta(0))

        refused, refused_http2 = ask(kept, get(scene.one)), http2.ask(two)
        assert (refused.status, refused.reason) == (503, "ca_expired")
        assert refused_http2 is not None and (refused_http2.status, refused_http2.reason) == (503, "ca_expired")
        assert "expired at" in refused.problem["detail"] and "mounted a current one" in refused.problem["hint"]
    assert len(scene.seen.requests) == served
    scene.sidecar.event("request_denied", reason="ca_expired")
    assert {event["status"] for event in scene.sidecar.events("request_denied", reason="ca_expired")} == {503}


def test_a_plain_request_is_refused(scene: Scene) -> None:
    scene.let(timedelta(0))

    with dial(scene.sidecar) as sock:
        refused = ask(sock, get(scene.one, f"http://{scene.one}/"))

    assert (refused.status, refused.reason) == (503, "ca_expired")


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["1.2", "1.3"])
def test_a_handshake_ends_with_an_alert_and_nothing_is_dialled(scene: Scene, version: ssl.TLSVersion) -> None:
    context = trusting(scene.sidecar)
    context.minimum_version = context.maximum_version = version
    scene.let(timedelta(0))

    with tunnel(scene.sidecar, scene.one) as sock, pytest.raises(ssl.SSLError, match="INTERNAL_ERROR"):
        context.wrap_socket(sock, server_hostname="one.test")

    denied = scene.sidecar.event("connection_denied")
    assert (denied["reason"], denied["host"], denied["sni"]) == ("ca_expired", "one.test", "one.test")
    assert scene.root.connections == 0
    assert not scene.sidecar.events("tls_handshake_failed") and not scene.sidecar.events("internal_error")


def test_curl_says_what_it_was_told(scene: Scene) -> None:
    scene.let(timedelta(0))

    command = ["curl", "-sS", "-x", f"http://{scene.sidecar.listen}", "--cacert", str(scene.sidecar.bundle)]
    done = subprocess.run([*command, f"https://{scene.one}/"], capture_output=True, text=True, timeout=60, check=False)

    assert done.returncode == 35 and "internal error" in done.stderr


def test_what_needs_no_certificate_goes_on(scene: Scene) -> None:
    pinned = f"pinned.test:{scene.port}"
    context = ssl.create_default_context(cafile=str(scene.root.pem))
    with secure(scene.sidecar, scene.one) as streaming:
        streaming.sendall(get(scene.one, "/events"))
        data = streaming.recv(65_536)

        scene.let(timedelta(0))

        scene.seen.release.set()
        while b"second" not in data:
            data += (more := streaming.recv(65_536))
            assert more, data
    with context.wrap_socket(tunnel(scene.sidecar, pinned), server_hostname="pinned.test") as sock:
        assert ask(sock, get(pinned)).status == 200


def test_another_ca_ends_the_refusals(scene: Scene) -> None:
    with secure(scene.sidecar, scene.one) as kept:
        assert ask(kept, get(scene.one)).status == 200
        scene.let(timedelta(0))
        assert ask(kept, get(scene.one)).status == 503
        fresh = issue_session_ca(common_name="fresh", now=scene.clock.now)
        (scene.sidecar.trust / "bundle.pem").write_bytes(fresh.root_pem())

        scene.sidecar.call(lambda: scene.sidecar.session.rotate(fresh, Take(RotationReason.OLD_CA_EXPIRED)))

        assert ask(kept, get(scene.one)).status == 200, "the connection of before"
        context = trusting(scene.sidecar)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # the leaf begins in the future
        with context.wrap_socket(tunnel(scene.sidecar, scene.one), server_hostname="one.test") as sock:
            assert ask(sock, get(scene.one)).status == 200
    scene.let(timedelta(0))
    assert len(scene.sidecar.events("ca_expired")) == 1


def test_a_timer_tells_the_end_when_it_comes(tmp_path: Path) -> None:
    """By the wall clock: the CA's end is the only thing that happens."""
    now = datetime.now(UTC).replace(microsecond=0)
    ca = issue_session_ca(common_name="brief", now=now, validity=timedelta(seconds=3), skew=timedelta(0))
    with in_process(tmp_path, POLICY, upstream_ca=Root(tmp_path).pem, names=(), ca=ca) as sidecar:
        expired = sidecar.event("ca_expired")
        with suppress(OSError), dial(sidecar) as sock:
            assert ask(sock, get("one.test", "http://one.test/")).reason == "ca_expired"
    assert expired["timestamp"][:19] >= f"{ca.not_after:%FT%T}"
