"""A CA with name constraints: served is what it may answer for, all else gets a TLS alert and is never dialled."""

import os
import shutil
import ssl
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest

from sidecar.bootstrap import Order, bootstrap
from sidecar.hosts import Host
from sidecar.pki import LeafMinter, issue_session_ca
from sidecar.pki.coverage import constraints_for
from sidecar.policy import parse_policy
from tests.live.inprocess import in_process
from tests.live.mounted import put
from tests.live.sidecars import Sidecar, running, until
from tests.live.upstreams import Root, serving
from tests.live.wire import ask, environment, get, secure, trusting, tunnel
from tests.pki.authorities import DAY, authority, constraints

pytestmark = pytest.mark.live

PORTS = 'ports: ["1-65535"]'
ALLOWED = f'- allow: ["one.test"]\n    {PORTS}'
PINNED = f'- passthrough: ["pinned.test"]\n    {PORTS}'
OTHER = f'- name: another\n    allow: ["one.test", "other.test"]\n    {PORTS}'


def policy(*rules: str) -> str:
    return "\n  ".join(("version: 1\nrules:", *rules)) + '\nnetwork: {allow_addresses: ["127.0.0.1"]}\n'


POLICY = policy(PINNED, '- name: secret\n    deny: ["secret.test"]', ALLOWED)


def constrained(folder: Path) -> tuple[Path, Path]:
    order = Order(
        common_name="constrained",
        ca_dir=folder / "ca",
        trust_dir=folder / "trust",
        two_tier=True,
        constraints=constraints_for(parse_policy(POLICY)),
    )
    bootstrap(order, datetime.now(UTC))
    return order.ca_dir, order.trust_dir


def konflux(folder: Path) -> tuple[Path, Path]:
    """The PKI of a platform: constraints as they were meant for a matcher of patterns, on a root."""
    now = datetime.now(UTC)
    span = {"begin": now - DAY, "end": now + DAY}
    root = authority("konflux root", path_length=1, extra=[constraints(["*.redhat.com"], ["*"])], **span)  # type: ignore[arg-type]
    issuing = authority("konflux", root, path_length=0, **span)  # type: ignore[arg-type]
    ca, trust = folder / "ca", folder / "trust"
    ca.mkdir()
    trust.mkdir()
    for name, data in (("tls.crt", issuing.pem), ("tls.key", issuing.key_pem), ("ca.crt", root.pem)):
        (ca / name).write_bytes(data)
        (ca / name).chmod(0o600)
    (trust / "bundle.pem").write_bytes(root.pem)
    return ca, trust


@dataclass
class Scene:
    sidecar: Sidecar
    file: Path
    root: Root
    port: int


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    folder = tmp_path_factory.mktemp("constraints")
    root = Root(folder)
    with (
        serving(root.context("one.test", "pinned.test", "other.test")) as (port, _),
        running(
            folder / "sidecar",
            POLICY,
            *("--upstream-ca", str(root.pem)),
            *(f"--resolve={name}.test:127.0.0.1" for name in ("one", "other", "pinned")),
            make=constrained,
        ) as sidecar,
    ):
        sidecar.event("policy_loaded")
        yield Scene(sidecar, folder / "sidecar" / "policy.yaml", root, port)


def test_what_the_policy_allows_is_served(scene: Scene) -> None:
    with secure(scene.sidecar, f"one.test:{scene.port}") as sock:
        answer = ask(sock, get("one.test"))

    assert answer.status == 200
    assert scene.sidecar.event("ca_loaded")["warnings"] == []


def test_a_denied_name_below_an_allowed_one_reads_its_403(scene: Scene) -> None:
    with secure(scene.sidecar, f"below.one.test:{scene.port}") as sock:
        assert ask(sock, get("below.one.test")).reason == "default_deny"


def test_a_denied_name_outside_gets_an_alert_that_names_the_name(scene: Scene) -> None:
    before = scene.root.connections

    with pytest.raises(ssl.SSLError, match=r"(?i)unrecognized.name"):
        secure(scene.sidecar, f"denied.test:{scene.port}")

    denied = scene.sidecar.event("connection_denied", host="denied.test")
    assert denied["reason"] == "ca_constraint"
    assert "permit only one.test, trust.egress.internal" in denied["detail"]
    assert scene.root.connections == before
    assert not scene.sidecar.events("tls_handshake_failed", host="denied.test")


def test_the_record_has_the_rule_that_denies_the_name_anyway(scene: Scene) -> None:
    with pytest.raises(ssl.SSLError, match=r"(?i)unrecognized.name"):
        secure(scene.sidecar, f"secret.test:{scene.port}")

    denied = scene.sidecar.event("connection_denied", host="secret.test")
    assert (denied["reason"], denied["rule"]) == ("ca_constraint", "rules[1] 'secret'")


def test_an_address_gets_an_alert_too(scene: Scene) -> None:
    sock = tunnel(scene.sidecar, f"127.0.0.9:{scene.port}")
    context = trusting(scene.sidecar)

    with pytest.raises(ssl.SSLError, match=r"(?i)access.denied"):
        context.wrap_socket(sock, server_hostname="127.0.0.9")

    assert scene.sidecar.event("connection_denied", host="127.0.0.9")["reason"] == "ca_constraint"


def test_over_plain_http_a_denied_name_still_reads_its_403(scene: Scene) -> None:
    with tunnel(scene.sidecar, f"plain.test:{scene.port}") as sock:
        assert ask(sock, get(f"plain.test:{scene.port}")).reason == "default_deny"


def test_what_passes_through_needs_no_leaf(scene: Scene) -> None:
    context = ssl.create_default_context(cafile=str(scene.root.pem))
    with context.wrap_socket(tunnel(scene.sidecar, f"pinned.test:{scene.port}"), server_hostname="pinned.test") as sock:
        assert ask(sock, get("pinned.test")).status == 200


def test_another_name_on_an_allowed_connection_gets_the_alert(scene: Scene) -> None:
    before = scene.root.connections

    with pytest.raises(ssl.SSLError, match=r"(?i)unrecognized.name"):
        secure(scene.sidecar, f"one.test:{scene.port}", sni="elsewhere.test")

    assert scene.sidecar.event("connection_denied", sni="elsewhere.test")["reason"] == "ca_constraint"
    assert scene.root.connections == before


@pytest.mark.parametrize(
    ("command", "says"),
    [
        pytest.param(
            ("curl", "--silent", "--show-error", "--cacert", "{root}", "--proxy", "{proxy}", "https://tool.test/"),
            "unrecognized name",
            id="curl",
        ),
        pytest.param(
            ("openssl", "s_client", "-proxy", "{listen}", "-connect", "tool.test:443", "-servername", "tool.test"),
            "unrecognized name",
            id="openssl",
        ),
    ],
)
def test_tools_say_what_the_matter_is(scene: Scene, command: tuple[str, ...], says: str) -> None:
    if shutil.which(command[0]) is None and not os.environ.get("CI"):
        pytest.skip(f"{command[0]} is missing")
    ca = scene.sidecar.trust / "ca.pem"
    words = [word.format(root=ca, proxy=scene.sidecar.proxy, listen=scene.sidecar.listen) for word in command]
    done = subprocess.run(
        words, capture_output=True, text=True, stdin=subprocess.DEVNULL, env=environment(), timeout=60, check=False
    )

    assert done.returncode != 0
    assert says in done.stderr


def test_a_reload_beyond_the_constraints_changes_nothing(scene: Scene) -> None:
    put(scene.file, policy(PINNED, ALLOWED, OTHER))

    failed = scene.sidecar.event("policy_reload_failed")

    (problem,) = failed["problems"]
    assert "rules[2].allow[1]: 'other.test' can't be answered for" in problem
    assert "bootstrap --force --constrain-to" in problem
    with secure(scene.sidecar, f"one.test:{scene.port}") as sock:
        assert ask(sock, get("one.test")).status == 200
    with pytest.raises(ssl.SSLError, match=r"(?i)unrecognized.name"):
        secure(scene.sidecar, f"other.test:{scene.port}")

    put(scene.file, policy(PINNED, f'- allow: ["one.test", "sub.one.test"]\n    {PORTS}'))
    until(lambda: len(scene.sidecar.events("policy_loaded")) > 1, "a policy within the constraints")


def test_a_ca_that_is_replaced_during_the_handshake_is_the_one_that_counts(tmp_path: Path) -> None:
    class Replaced(LeafMinter):
        asked = 0

        def refusal(self, host: Host) -> str | None:
            self.asked += 1
            return super().refusal(host) if self.asked > 1 else None

    now = datetime.now(UTC)
    ca = issue_session_ca(common_name="c", now=now, constraints=constraints_for(parse_policy(POLICY)))
    with in_process(tmp_path, POLICY, upstream_ca=None, names=(), ca=ca) as sidecar:
        sidecar.session._minter = Replaced(ca, lambda: now)
        done = subprocess.run(
            [
                "curl",
                "--silent",
                "--show-error",
                "--insecure",
                "--proxy",
                f"http://{sidecar.listen}",
                "https://b.test/",
            ],
            capture_output=True,
            text=True,
            env=environment(),
            timeout=60,
            check=False,
        )

        assert "unrecognized name" in done.stderr
        sidecar.event("connection_denied", host="b.test", reason="ca_constraint")
        assert not sidecar.events("internal_error")


def test_a_start_beyond_the_constraints_is_refused(tmp_path: Path) -> None:
    ca, _ = constrained(tmp_path)
    (tmp_path / "policy.yaml").write_text(policy(OTHER))
    events = tmp_path / "events.jsonl"

    words = f"--listen 127.0.0.1:0 --ca-dir {ca} --policy {tmp_path}/policy.yaml --events {events}".split()
    done = subprocess.run(
        [sys.executable, "-m", "sidecar", "run", *words],
        capture_output=True,
        text=True,
        env=environment() | {"PYTHONPATH": os.environ.get("PYTHONPATH", "")},
        timeout=60,
        check=False,
    )

    assert done.returncode == 2
    assert "rules[0].allow[1]: 'other.test' can't be answered for" in done.stderr
    assert not events.exists()


def test_the_constraints_of_konflux_load_with_a_warning_and_serve_what_they_can(tmp_path: Path) -> None:
    root = Root(tmp_path)
    rules = policy(f'- allow: ["registry.redhat.com"]\n    {PORTS}')
    with (
        serving(root.context("registry.redhat.com")) as (port, _),
        running(
            tmp_path / "sidecar",
            rules,
            *("--upstream-ca", str(root.pem), "--resolve=registry.redhat.com:127.0.0.1"),
            make=konflux,
        ) as sidecar,
    ):
        (warning,) = sidecar.event("ca_loaded")["warnings"]
        assert "permitted are *.redhat.com, excluded *, each as it is written" in warning
        (warning,) = sidecar.event("policy_loaded")["warnings"]
        assert "rules[0].allow[0]: 'registry.redhat.com' can't be answered for" in warning

        with pytest.raises(ssl.SSLError, match=r"(?i)unrecognized.name"):
            secure(sidecar, f"registry.redhat.com:{port}")

        assert sidecar.event("connection_denied")["reason"] == "ca_constraint"
        assert root.connections == 0
