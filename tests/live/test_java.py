"""Java, told whom to trust by ``JAVA_TOOL_OPTIONS`` alone: both of its HTTP clients, both kinds of store."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from sidecar.trust.env import JAVA, env_variables, java_proxy_options, with_java_options
from tests.live.sidecars import Sidecar, running, until
from tests.live.upstreams import Root, serving
from tests.live.wire import environment

pytestmark = [pytest.mark.live, pytest.mark.timeout(300)]

POLICY = """
version: 1
rules:
  - allow: ["allowed.test"]
    ports: [{port}]
network:
  allow_addresses: ["127.0.0.1"]
"""

PROGRAM = """
import java.io.*;
import java.net.*;
import java.net.http.*;
import javax.net.ssl.HttpsURLConnection;

public class Get {
    public static void main(String[] urls) throws Exception {
        for (var url : urls) {
            var request = HttpRequest.newBuilder(URI.create(url)).build();
            var answer = HttpClient.newHttpClient().send(request, HttpResponse.BodyHandlers.ofString());
            System.out.println("HttpClient " + answer.statusCode() + " " + answer.body().strip());
            var connection = (HttpsURLConnection) new URL(url).openConnection();
            var status = connection.getResponseCode();
            var body = status < 400 ? connection.getInputStream() : connection.getErrorStream();
            System.out.println("HttpsURLConnection " + status + " " + new String(body.readAllBytes()).strip());
        }
    }
}
"""


@dataclass(frozen=True)
class Scene:
    sidecar: Sidecar
    root: Root
    port: int
    folder: Path

    @property
    def urls(self) -> list[str]:
        return [f"https://{name}.test:{self.port}/" for name in ("allowed", "denied")]

    def run(self, options: str) -> subprocess.CompletedProcess[str]:
        proxied = with_java_options(options, java_proxy_options(self.sidecar.proxy))
        return subprocess.run(
            ["java", "-cp", str(self.folder), "Get", *self.urls],
            env=environment(**{JAVA: proxied}),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    if shutil.which("javac") is None:
        pytest.fail("needs javac")
    folder = tmp_path_factory.mktemp("java")
    (folder / "Get.java").write_text(PROGRAM)
    subprocess.run(["javac", "-d", folder, folder / "Get.java"], check=True, capture_output=True, timeout=120)
    root = Root(folder)
    with (
        serving(root.context("allowed.test")) as (port, _),
        running(
            folder / "sidecar",
            POLICY.format(port=port),
            *("--upstream-ca", str(root.pem), "--resolve", "allowed.test:127.0.0.1"),
        ) as sidecar,
    ):
        yield Scene(sidecar, root, port, folder)


def env_file(trust: Path) -> str:
    lines = (trust / "env").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines)[JAVA]


@pytest.mark.parametrize(
    "options",
    [
        pytest.param(env_file, id="as the env file has it"),
        pytest.param(lambda trust: env_variables(trust, java="-Xmx256m")[JAVA], id="appended to the user's, with type"),
        pytest.param(lambda trust: f"-Djavax.net.ssl.trustStore={trust / 'truststore.jks'}", id="JKS"),
        pytest.param(
            lambda trust: f"-Djavax.net.ssl.trustStore={trust}/layouts/debian/etc/ssl/certs/java/cacerts",
            id="Debian's cacerts",
        ),
    ],
)
def test_both_clients_get_what_is_allowed_and_read_why_not(scene: Scene, options: object) -> None:
    assert callable(options)
    done = scene.run(options(scene.sidecar.trust))

    assert done.returncode == 0, done.stderr
    for client in ("HttpClient", "HttpsURLConnection"):
        allowed, denied = (line for line in done.stdout.splitlines() if line.startswith(f"{client} "))
        assert allowed.startswith(f"{client} 200 hello from allowed.test")
        assert denied.startswith(f"{client} 403 {{")
        assert "default_deny" in denied


def test_java_s_own_store_does_not_do(scene: Scene) -> None:
    before = len(scene.sidecar.events("tls_handshake_failed"))

    done = scene.run("")

    assert done.returncode != 0
    assert "unable to find valid certification path" in done.stderr
    failed = until(lambda: scene.sidecar.events("tls_handshake_failed")[before:], "tls_handshake_failed")
    assert failed[0]["reason"] == "tls_client_rejected_ca"


def test_a_java_command_under_exec_needs_nothing_of_its_own(scene: Scene, tmp_path: Path) -> None:
    spaced = tmp_path / "a folder"
    spaced.mkdir()
    (scene.folder / "policy.yaml").write_text(POLICY.format(port=scene.port))
    command = [sys.executable, "-m", "sidecar", "exec", "--quiet", "--policy", str(scene.folder / "policy.yaml")]
    command += ["--upstream-ca", str(scene.root.pem), "--resolve", "allowed.test:127.0.0.1"]
    kept = {name: value for name, value in os.environ.items() if not name.startswith("EGRESS_")}

    done = subprocess.run(
        [*command, "--", "java", "-cp", str(scene.folder), "Get", *scene.urls],
        env=kept | {"TMPDIR": str(spaced), JAVA: "-Dmine=yes"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert [line.split()[1] for line in done.stdout.splitlines() if line.startswith("Http")] == ["200"] * 2 + [
        "403"
    ] * 2
    assert "-Dmine=yes" in done.stderr, "Java says which options it has picked up"
