"""The shipped compose files, unchanged, by compose v2 on a real Docker daemon: up, requests, restarts, logs, down."""

import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from tests.heavy.docker import Docker, daemons
from tests.heavy.images import ROOT, Images, need
from tests.heavy.internet import ADDRESSES, Node, nodes
from tests.live.bypass import places
from tests.live.sidecars import Line, until

pytestmark = [pytest.mark.live, pytest.mark.root, pytest.mark.heavy, pytest.mark.timeout(1500)]

FOLDER: Final = ROOT / "deploy" / "compose"
ALLOWED, DENIED = "www.example.com", places.DENIED  # by the shipped policy
ANSWER: Final = ["internet", "200"]
DIAL: Final = """
import socket, sys
s = socket.create_connection((sys.argv[1], int(sys.argv[2])), 5); s.sendall(b"hello\\r\\n\\r\\n")
print(s.recv(100))
"""


@dataclass
class Project:
    """One of the shipped files, up."""

    docker: Docker
    node: Node
    file: Path
    env: dict[str, str]

    def compose(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        return self.docker.compose(self.file, *arguments, env=self.env, check=check)

    def work(self, *command: str) -> subprocess.CompletedProcess[str]:
        return self.compose("exec", "--no-TTY", "workload", *command, check=False)

    def get(self, host: str) -> str:
        """Body and status, or what curl complains of."""
        result = self.work("curl", "-sS", "--max-time", "20", "-w", "\n%{http_code}", f"https://{host}/")
        return result.stdout + result.stderr

    def events(self, name: str) -> list[Line]:
        """From ``docker compose logs``."""
        lines = self.compose("logs", "--no-log-prefix", "--no-color", "sidecar").stdout.splitlines()
        return [line for line in (json.loads(line) for line in lines if line.startswith("{")) if line["event"] == name]

    def containers(self) -> dict[str, str]:
        """Ids of what runs, by service."""
        found = self.compose("ps", "--format", "json").stdout.splitlines()
        return {container["Service"]: container["ID"] for container in map(json.loads, found)}


@pytest.fixture(scope="module")
def docker(images: Images, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Docker, Node]]:
    need("dockerd", "docker", "docker-init")
    with nodes(tmp_path_factory.mktemp("node")) as node, daemons(images, node) as running:
        for image in (images.sidecar, images.workload):
            running.load(image)
        yield running, node


@pytest.fixture(scope="module", params=["compose.yaml", "explicit.yaml"])
def project(
    request: pytest.FixtureRequest,
    images: Images,
    docker: tuple[Docker, Node],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Project]:
    """A folder with the shipped policy, to which the addresses of the tests' Internet are added."""
    folder = tmp_path_factory.mktemp("policy")
    folder.chmod(0o755)
    for parent in folder.parents[:2]:
        parent.chmod(0o755)  # pytest's are root's alone
    (folder / "policy.yaml").write_text((FOLDER / "policy.yaml").read_text() + ADDRESSES)
    (folder / "root.pem").write_bytes(docker[1].root.read_bytes())
    env = {"EGRESS_IMAGE": images.sidecar, "WORKLOAD_IMAGE": images.workload, "EGRESS_POLICY_DIR": str(folder)}
    env["EGRESS_UPSTREAM_CA"] = "/etc/egress/policy/root.pem"
    made = Project(*docker, FOLDER / request.param, env)
    try:
        made.compose("up", "--detach")
        yield made
    finally:
        made.compose("down", "--volumes", "--timeout", "5", check=False)


def test_an_allowed_host_answers_and_a_denied_one_says_why(project: Project) -> None:
    allowed, denied = project.get(ALLOWED), project.get(DENIED)

    assert allowed.split() == ANSWER, allowed
    assert '"reason":"default_deny"' in denied
    assert denied.endswith("403")
    for event, host in (("request_allowed", ALLOWED), ("request_denied", DENIED)):
        last = until(lambda event=event: project.events(event)[-1:], event)[0]  # type: ignore[misc]
        assert last["host"] == host


def test_nothing_gets_past_the_sidecar(project: Project) -> None:
    for address in (places.V4, "169.254.169.254"):
        said = project.work("python3", "-c", DIAL, address, "443")

        # The fence hands it to the sidecar, which hangs up; without, the network leads nowhere.
        assert "b''" in said.stdout or "timed out" in said.stderr or "unreachable" in said.stderr, said
    assert project.node.astray() == []


def test_the_fence_is_proven_before_the_workload_starts_or_no_capability_is_asked_for(project: Project) -> None:
    if "fence-check" in project.compose("config", "--services").stdout.split():
        assert "the fence holds" in project.compose("logs", "--no-log-prefix", "fence-check").stdout
    else:
        assert "cap_add" not in project.file.read_text()


@pytest.mark.parametrize("service", ["sidecar", "workload"])
def test_a_restart_leaves_the_others_connected(project: Project, service: str) -> None:
    before = project.containers()

    project.compose("restart", "--timeout", "10", service)

    assert project.containers() == before
    until(lambda: project.get(ALLOWED).split() == ANSWER or None, "answer after the restart")
    assert project.get(DENIED).endswith("403")
    if service == "sidecar":
        assert len({ca["fingerprint_sha256"] for ca in project.events("ca_loaded")}) == 1
        assert len(project.events("session_ended")) == 1


def test_without_the_sidecar_nothing_flows(project: Project) -> None:
    project.compose("stop", "--timeout", "10", "sidecar")

    said = project.get(ALLOWED)

    assert said.endswith("000") or "curl: (" in said
    assert project.node.astray() == []
    project.compose("start", "sidecar")
    until(lambda: project.get(ALLOWED).split() == ANSWER or None, "answer after the start")


def test_the_key_is_nowhere_in_the_workload(project: Project) -> None:
    assert project.work("ls", "/run/egress/ca").returncode != 0
    assert project.work("ls", "/run/egress/control").returncode != 0
    assert "bundle.pem" in project.work("grep", "-rla", "BEGIN CERTIFICATE", "/etc/egress/trust").stdout
    assert project.work("grep", "-rla", "PRIVATE KEY", "/etc/egress/trust").stdout == ""


def test_down_removes_all(project: Project) -> None:
    project.compose("down", "--volumes", "--timeout", "5")

    assert project.containers() == {}
    assert project.compose("volumes", "--quiet").stdout.split() == []
