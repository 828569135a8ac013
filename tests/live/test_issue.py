"""
A pod serves HTTPS with the certificate that ``sidecar issue`` made in its init container; another one's client reaches
it through its own sidecar, by address and by the service's name.

What a container sees of the pod's files is modelled by mount namespaces: the init container has the CA's folder, the
workload has an empty one in its place. Its process may read any file, whatever its mode.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from sidecar.bootstrap import Order, bootstrap
from sidecar.pki import SessionCa
from sidecar.secrets import load_ca
from tests.live import key_search
from tests.live.intercepted import RESOLVER_V4, Intercepted, Zone, intercepted
from tests.live.pod import WORKLOAD_UID, Namespace, Pod, Process
from tests.live.wire import environment

pytestmark = [pytest.mark.live, pytest.mark.root]

V4, V6 = "10.20.0.5", "fd12:3456::5"
SERVICE, ANOTHER = "web.agents.svc.cluster.local", "api.agents.svc.cluster.local"
PORT: Final = 8443
POLICY: Final = f"""
version: 1
rules:
  - name: peers
    allow: ["**.svc.cluster.local", "{V4}", "{V6}"]
    ports: [{PORT}]
network: {{allow_addresses: ["{V4}", "{V6}"]}}
"""
ZONE: Final = Zone(names={SERVICE: [V4, V6], ANOTHER: [V4]}, extra_addresses=(V4, V6))
# As the kubelet writes it.
RESOLV_CONF: Final = f"""
search agents.svc.cluster.local svc.cluster.local cluster.local
nameserver {RESOLVER_V4}
options ndots:5
"""
DOWNWARD: Final = {"POD_IPS": f"{V4},{V6}", "POD_NAME": "web-0", "POD_NAMESPACE": "agents"}

SERVER: Final = """
import http.server, socket, ssl, sys
class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.send_header("Content-Length", "18"); self.end_headers()
        self.wfile.write(b"hello from the pod")
    def log_message(self, *_): pass
class Server(http.server.ThreadingHTTPServer):
    address_family = socket.AF_INET6
server = Server(("::", int(sys.argv[2])), Answer)
context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
context.load_cert_chain(sys.argv[1] + "/tls.crt", sys.argv[1] + "/tls.key")
server.socket = context.wrap_socket(server.socket, server_side=True)
print("ready")
server.serve_forever()
"""


@dataclass(frozen=True)
class ServingPod:
    """The pod that serves; `issued` is what its init container said."""

    namespace: Namespace
    folder: Path
    ca: SessionCa
    issued: str

    def container(self, *words: str, shows_ca: bool) -> list[str]:
        """The command line of a program in a container of its own, with or without the CA's folder."""
        enter = self.namespace.command((), uid=None)
        inside = self.namespace.command(words, uid=WORKLOAD_UID)[len(enter) :]
        hide = "" if shows_ca else 'mount -t tmpfs none "$0" && '
        unshared = ["unshare", "--mount", "--pid", "--fork", "--mount-proc", "--kill-child"]
        return [*enter, *unshared, "sh", "-c", f'{hide}exec "$@"', str(self.folder / "ca"), *inside]

    def searched(self, *, shows_ca: bool) -> tuple[list[str], int]:
        """Where a container finds the CA's key, and how many files it has looked into."""
        command = self.container(sys.executable, key_search.__file__, str(self.folder), "/dev/shm", shows_ca=shows_ca)
        done = subprocess.run(
            command, input=needles(self.ca), env=environment(), capture_output=True, text=True, timeout=60, check=True
        )
        answer = json.loads(done.stdout)
        return answer["found"], answer["read"]


def needles(ca: SessionCa) -> str:
    """The key as it might lie about: lines of its PEM, its DER, the bare number."""
    assert isinstance(ca.key, ec.EllipticCurvePrivateKey)
    lines = [line for line in ca.key_pem().splitlines() if b"-----" not in line and len(line) > 16]
    der = ca.key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    number = ca.key.private_numbers().private_value.to_bytes(32)
    return json.dumps([needle.hex() for needle in (*lines, der, number)]) + "\n"


@contextmanager
def serving(pod: Pod, folder: Path) -> Iterator[ServingPod]:
    """Issue the certificate as an init container does, then start the server as the workload."""
    ca = load_ca(folder / "ca", datetime.now(UTC))
    (folder / "tls").mkdir()
    for path in (folder / "ca", *(folder / "ca").iterdir(), folder / "tls"):
        os.chown(path, WORKLOAD_UID, WORKLOAD_UID)
    half = ServingPod(pod.internet, folder, ca, "")
    command = [sys.executable, "-m", "sidecar", "issue", "--ca-dir", str(folder / "ca"), "--out", str(folder / "tls")]
    issued = subprocess.run(
        half.container(*command, "--service", "web", "--json", shows_ca=True),
        env=environment(PYTHONPATH=str(Path(__file__).parents[2]), **DOWNWARD),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert issued.returncode == 0, issued.stderr
    server = Process(
        subprocess.Popen(
            half.container(sys.executable, "-uc", SERVER, str(folder / "tls"), str(PORT), shows_ca=False),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment(),
        )
    )
    try:
        assert server.line() == "ready"
        yield ServingPod(pod.internet, folder, ca, issued.stdout)
    finally:
        server.kill()


@dataclass(frozen=True)
class Scene:
    peer: ServingPod
    client: Intercepted


@pytest.fixture(scope="module")
def scene() -> Iterator[Scene]:
    # Not pytest's folder, which is root's alone: the pods' users are others.
    with TemporaryDirectory(prefix="egress-peer-") as made:
        folder = Path(made)
        folder.chmod(0o755)
        order = Order(common_name="session-of-the-peer", ca_dir=folder / "ca", trust_dir=folder / "trust")
        bootstrap(order, datetime.now(UTC))
        arguments = ["--upstream-ca", str(folder / "trust" / "ca.pem")]
        with (
            intercepted(policy=POLICY, zone=ZONE, resolv_conf=RESOLV_CONF, arguments=arguments) as client,
            serving(client.pod, folder) as peer,
        ):
            yield Scene(peer, client)


def get(scene: Scene, host: str) -> subprocess.CompletedProcess[str]:
    return scene.client.run("curl", "-sS", "--max-time", "20", f"https://{host}:{PORT}/")


@pytest.mark.parametrize(
    ("host", "name"),
    [
        pytest.param(V4, V4, id="its IPv4 address"),
        pytest.param(f"[{V6}]", V6, id="its IPv6 address"),
        pytest.param(SERVICE, SERVICE, id="its service's name"),
        pytest.param("web.agents", SERVICE, id="the service's name as another namespace writes it"),
        pytest.param("web", SERVICE, id="the service's name as its own namespace writes it"),
    ],
)
def test_a_client_reaches_the_pod_through_its_sidecar_by(scene: Scene, host: str, name: str) -> None:
    done = get(scene, host)

    assert (done.returncode, done.stdout) == (0, "hello from the pod"), done.stderr
    assert scene.client.sidecar.event("request_allowed", host=name)["rule"] == "rules[0] 'peers'"


def test_a_name_that_the_certificate_does_not_have_is_refused(scene: Scene) -> None:
    done = get(scene, ANOTHER)

    assert "hello" not in done.stdout
    assert scene.client.sidecar.event("tls_handshake_failed", side="server", host=ANOTHER)


def test_the_certificate_names_the_pod_as_the_downward_api_does(scene: Scene) -> None:
    answer = json.loads(scene.peer.issued)

    assert answer["issuer"] == "session-of-the-peer"
    assert {V4, V6, SERVICE, "web", "web-0", "10-20-0-5.agents.pod.cluster.local"} <= set(answer["names"])


def test_the_workload_finds_no_signing_key(scene: Scene) -> None:
    found, read = scene.peer.searched(shows_ca=False)

    assert found == []
    assert read > 5, "its own files at the least"


def test_the_search_finds_the_key_where_it_is(scene: Scene) -> None:
    found, _ = scene.peer.searched(shows_ca=True)

    assert str(scene.peer.folder / "ca" / "ca-key.pem") in found
