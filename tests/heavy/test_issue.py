"""
The example of a pod that makes its own certificate, run by podman, with the image of the Dockerfile.

What podman 4.3 can't do is put in by hand: a Secret's volume (a ConfigMap's instead), an fsGroup, the pod's address by
the downward API (a static one), probes.
"""

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import pytest
from ruamel.yaml import YAML

from sidecar.pki import SessionCa, issue_session_ca
from tests.heavy.images import Images
from tests.live import key_search
from tests.live.pod import Namespace, pods
from tests.live.sidecars import until
from tests.live.test_issue import needles

pytestmark = [pytest.mark.live, pytest.mark.root, pytest.mark.heavy, pytest.mark.timeout(1500)]

EXAMPLE: Final = Path(__file__).parents[2] / "deploy" / "examples" / "pod-serving.yaml"
NETWORK: Final = f"egress-issue-{os.getpid()}"
ADDRESS: Final = "10.79.0.20"

Object = dict[str, Any]


@dataclass
class Running:
    images: Images
    node: Namespace
    ca: SessionCa
    folder: Path

    def podman(self, *arguments: str, **options: Any) -> str:
        return self.images.run(*arguments, namespace=self.node.name, **options).stdout

    def searched(self, *where: str) -> Object:
        """What a search for the CA's key finds; *where* is podman's way into a container."""
        code = Path(key_search.__file__).read_text()
        answer: Object = json.loads(self.podman(*where, "python3", "-c", code, "/", input=needles(self.ca)))
        return answer


def adapted(images: Images, ca: SessionCa) -> list[Object]:
    """The example, for podman."""
    pod: Object = next(one for one in YAML(typ="safe").load_all(EXAMPLE.read_text()) if one["kind"] == "Pod")
    spec = pod["spec"]
    issue, web = spec["initContainers"][0], spec["containers"][0]
    issue["image"], web["image"] = images.sidecar, images.workload
    values = {"POD_IPS": ADDRESS, "POD_NAME": "web", "POD_NAMESPACE": "agents"}
    issue["env"] = [{"name": variable["name"], "value": values[variable["name"]]} for variable in issue["env"]]
    for probe in ("readinessProbe", "livenessProbe"):
        del web[probe]
    del spec["securityContext"]["fsGroup"]
    del pod["metadata"]["namespace"]
    # Else podman removes the init container when it ends, and at times says that it is running.
    pod["metadata"]["annotations"] = {"io.podman.annotations.init.container.type": "always"}
    files = {"ca.pem": ca.chain_pem().decode(), "ca-key.pem": ca.key_pem().decode()}
    spec["volumes"][0] = {"name": "issuing-ca", "configMap": {"name": "issuing-ca"}}
    return [{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "issuing-ca"}, "data": files}, pod]


@pytest.fixture(scope="module")
def pod(images: Images, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("issue")
    ca = issue_session_ca(common_name="issuing", now=datetime.now(UTC), validity=timedelta(days=365))
    manifest = folder / "pod.yaml"
    manifest.write_text("---\n".join(json.dumps(one) + "\n" for one in adapted(images, ca)))
    (folder / "root.pem").write_bytes(ca.root_pem())
    (folder / "ca").mkdir()
    (folder / "ca" / "ca-key.pem").write_bytes(ca.key_pem())
    with pods() as node:
        running = Running(images, node, ca, folder)
        running.podman("network", "create", "--subnet", "10.79.0.0/24", NETWORK)
        try:
            running.podman("play", "kube", "--network", NETWORK, "--ip", ADDRESS, str(manifest), timeout=120)
            yield running
        finally:
            running.podman("pod", "rm", "--force", "--time", "0", "web", check=False)
            running.podman("volume", "prune", "--force", check=False)
            running.podman("network", "rm", "--force", NETWORK, check=False)
            shutil.rmtree(Path("/var/lib/cni/networks", NETWORK), ignore_errors=True)  # addresses given out


@pytest.mark.parametrize("host", [ADDRESS, "web.agents.svc.cluster.local"])
def test_the_pod_serves_with_the_certificate_of_its_init_container(pod: Running, host: str) -> None:
    command = ["curl", "-sS", "--noproxy", "*", "--cacert", str(pod.folder / "root.pem"), "--max-time", "10"]
    command += ["--resolve", f"{host}:8443:{ADDRESS}", "--output", "/dev/null", "--write-out", "%{http_code}"]

    def answer() -> str | None:
        done = pod.node.run([*command, f"https://{host}:8443/"])
        return done.stdout if done.returncode == 0 else None

    assert until(answer, f"an answer; {pod.podman('logs', 'web-issue', check=False)}") == "200"


def test_the_workload_finds_no_signing_key(pod: Running) -> None:
    answer = pod.searched("exec", "--interactive", "web-web")

    assert answer["found"] == []
    assert answer["read"] > 1000, "the whole of its file system"


def test_the_search_finds_it_where_the_ca_is_mounted(pod: Running) -> None:
    mount = f"{pod.folder / 'ca'}:/run/issuing-ca:ro"

    answer = pod.searched("run", "--rm", "--interactive", "--network", "none", "--volume", mount, pod.images.workload)

    assert answer["found"] == ["/run/issuing-ca/ca-key.pem"]


def test_the_workload_reads_its_own_key_and_cannot_write(pod: Running) -> None:
    code = """
import os
print(os.getuid(), oct(os.stat("/run/tls/tls.key").st_mode & 0o777), "PRIVATE" in open("/run/tls/tls.key").read())
try: open("/run/tls/tls.key", "a"); print("opened")
except OSError as e: print(e.strerror)
"""
    said = pod.podman("exec", "web-web", "python3", "-c", code)

    assert said.splitlines() == ["20000 0o600 True", "Read-only file system"]
