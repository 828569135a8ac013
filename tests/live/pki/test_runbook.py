"""
deploy/pki/RUNBOOK.md, command by command, against a real OpenBao and beside a running sidecar with real clients.

What its `kubectl` reaches is `tests.live.pki.cluster`: no API server runs here, and the swap of the Secret's folder
stands for the kubelet's.
"""

import ssl
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.live import verifiers
from tests.live.pki import api
from tests.live.pki.made import NAMESPACE, SECRET, Pki, blocks, certificate
from tests.live.pki.openbao import Shell
from tests.live.sidecars import Sidecar, running
from tests.live.upstreams import Root, Seen, serving
from tests.live.wire import ask, get, tunnel

pytestmark = [pytest.mark.live, pytest.mark.timeout(600)]

HOST = "api.example.com"
POLICY = """
version: 1
rules:
  - allow: ["api.example.com"]
    ports: [{port}]
network:
  allow_addresses: ["127.0.0.1"]
"""


@dataclass(frozen=True)
class Scene:
    pki: Pki
    built: Path
    folder: Path
    sidecar: Sidecar
    port: int
    upstream: Seen

    def shell(self) -> Shell:
        return Shell(self.pki.folder, self.pki.variables | {"CLUSTER_LOGS": str(self.folder / "sidecar/events.jsonl")})

    def roots(self, name: str) -> Path:
        """What a client trusts that reads its bundle now, less the public roots."""
        return self.pki.roots(self.folder / f"{name}.pem")

    def everybody(self, roots: Path, *, accepts: bool) -> None:
        """Each client, started now, does or doesn't accept what the sidecar shows."""
        for name in verifiers.VERIFIERS:
            verdict = verifiers.ask(name, self.built, proxy=self.sidecar.port, host=HOST, port=self.port, roots=roots)
            assert (verdict.accepted, verdict.refused) == (accepts, not accepts), f"{name}: {verdict}"

    def connect(self, roots: Path) -> ssl.SSLSocket:
        context = ssl.create_default_context(cafile=str(roots))
        return context.wrap_socket(tunnel(self.sidecar, f"{HOST}:{self.port}"), server_hostname=HOST)

    def answers(self, connection: ssl.SSLSocket) -> bool:
        return ask(connection, get(f"{HOST}:{self.port}")).status == 200


@pytest.fixture
def scene(pki: Pki, built: Path, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Scene]:
    """A sidecar with its CA and its trust bundle mounted, as deploy/pki/kubernetes/workload.yaml has it."""
    root = Root(tmp_path)
    with (
        serving(root.context(HOST)) as (port, upstream),
        running(
            tmp_path / "sidecar",
            POLICY.format(port=port),
            *("--ca-dir", str(pki.ca_dir), "--trust-bundle", str(pki.bundle), "--root-overlap", str(request.param)),
            *("--upstream-ca", str(root.pem), "--resolve", f"{HOST}:127.0.0.1"),
        ) as sidecar,
    ):
        yield Scene(pki, built, tmp_path, sidecar, port, upstream)


@contextmanager
def undisturbed(scene: Scene, roots: Path) -> Iterator[None]:
    """A kept-alive connection and a stream that outlive all that happens meanwhile."""
    with scene.connect(roots) as kept, scene.connect(roots) as streaming:
        assert scene.answers(kept)
        streaming.sendall(get(f"{HOST}:{scene.port}", "/events"))
        received = b""
        while b"first" not in received:
            received += streaming.recv(65_536)

        yield

        assert scene.answers(kept)
        scene.upstream.release.set()
        while b"second" not in received:
            piece = streaming.recv(65_536)
            assert piece, "the stream has ended"
            received += piece


def known(scene: Scene, what: str) -> list[str]:
    """The identifiers of all issuers, or of all keys, in OpenBao."""
    bao = scene.pki.bao
    found: list[str] = api.ask(bao.address, f"egress-pki/{what}?list=true", bao.token)["data"]["keys"]
    return found


def run(shell: Shell, commands: Iterable[str]) -> None:
    for block in commands:
        shell.run(block)


@pytest.mark.parametrize("scene", [86_400], indirect=True, ids=["overlap of a day"])
def test_after_a_leak_nobody_trusts_the_old_chain_and_service_returns_without_a_restart(scene: Scene) -> None:
    phase_1, phase_2 = (
        blocks("RUNBOOK.md", f"### Phase {heading}")
        for heading in ("1: nobody trusts what was leaked", "2: service again")
    )
    before, leaked = scene.roots("before"), scene.pki.cluster.data("secret", NAMESPACE, SECRET)
    keys = known(scene, "keys")
    scene.everybody(before, accepts=True)

    with undisturbed(scene, before), scene.shell() as shell:
        run(shell, phase_1)
        after = scene.roots("after")
        assert certificate(before.read_bytes()) != certificate(after.read_bytes())
        assert len(known(scene, "issuers")) == len(known(scene, "keys")) == 1
        assert not set(known(scene, "keys")) & set(keys), "the old root's key is gone"
        scene.everybody(after, accepts=False)
        assert not scene.sidecar.events("ca_rotated")

        run(shell, phase_2)
        rotated = scene.sidecar.event("ca_rotated")
        scene.everybody(after, accepts=True)
        scene.everybody(before, accepts=False)

    current = scene.pki.cluster.data("secret", NAMESPACE, SECRET)
    assert rotated["root_changed"] is True
    assert all(current[name] != leaked[name] for name in ("tls.crt", "tls.key", "ca.crt"))
    assert len(scene.sidecar.events("session_started")) == 1
    assert not scene.sidecar.events("ca_rotation_pending"), "a withdrawn root isn't waited for"


@pytest.mark.parametrize("scene", [1], indirect=True, ids=["overlap of a second"])
def test_a_new_root_without_a_leak_fails_for_nobody(scene: Scene) -> None:
    publish, renew, taken, withdraw = blocks("RUNBOOK.md", "## A new root without a leak")
    before = scene.roots("before")

    with undisturbed(scene, before), scene.shell() as shell:
        shell.run(publish)
        both = scene.roots("both")
        scene.everybody(both, accepts=True)
        shell.run(renew)
        shell.run(taken)
        scene.everybody(both, accepts=True)
        shell.run(withdraw)
        after = scene.roots("after")
        scene.everybody(after, accepts=True)

    (rotated,) = scene.sidecar.events("ca_rotated")
    assert rotated["root_changed"] is True
    assert certificate(before.read_bytes()) != certificate(after.read_bytes())
    assert len(known(scene, "issuers")) == len(known(scene, "keys")) == 1
