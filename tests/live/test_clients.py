"""Real clients, with the trust that the `env` file gives them and nothing else: one allowed request, one denied."""

import json
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.live.sidecars import Sidecar, running, until
from tests.live.upstreams import Root, serving
from tests.live.wire import environment

pytestmark = pytest.mark.live

POLICY = """
version: 1
rules:
  - name: internal
    deny: ["denied.test"]
    ports: [{port}]
  - allow: ["allowed.test"]
    ports: [{port}]
network:
  allow_addresses: ["127.0.0.1"]
"""


@dataclass(frozen=True)
class Client:
    """
    A program that fetches a URL.

    Attributes:
        command: Its command line; ``{url}``, ``{host}``, ``{port}``, ``{proxy}`` and ``{trust}`` are filled in.
        setting: What of its own the client needs, where it doesn't read the proxy or trust variables.
        stdin: What it's fed; filled in as well.
        reads_problem: Whether it shows the body of a refusal, or only its status.
        refused: What its output says of a refusal if it doesn't.
    """

    command: tuple[str, ...]
    setting: str = ""
    stdin: str = ""
    reads_problem: bool = True
    refused: str = "403"
    path: str = "/"
    allowed: str = "hello from allowed.test"


def python(code: str) -> tuple[str, ...]:
    return sys.executable, "-c", textwrap.dedent(code), "{url}"


def node(code: str) -> tuple[str, ...]:
    return "node", "-e", textwrap.dedent(code), "{url}", "{proxy}"


# Node 20 reads no proxy variables (Node 22.21 does, where NODE_USE_ENV_PROXY=1): the CONNECT is the program's own.
NODE_TUNNEL = """
const [url, proxy] = [new URL(process.argv[1]), new URL(process.argv[2])];
const tunnel = () => new Promise((ready, failed) => {
  const path = `${url.hostname}:${url.port}`;
  require('http').request({host: proxy.hostname, port: proxy.port, method: 'CONNECT', path, headers: {host: path}})
    .on('connect', (_, socket) => {
      const secured = require('tls').connect({socket, servername: url.hostname, ALPNProtocols: ['http/1.1']});
      secured.once('secureConnect', () => ready(secured)).once('error', failed);
    }).on('error', failed).end();
});
"""

CLIENTS = {
    "curl": Client(("curl", "--silent", "--show-error", "{url}")),
    "curl, HTTP/1.1": Client(("curl", "--silent", "--show-error", "--http1.1", "{url}")),
    "openssl": Client(
        (
            *("openssl", "s_client", "-quiet", "-verify_return_error", "-verify_hostname", "{host}"),
            *("-proxy", "{proxy_address}", "-connect", "{host}:{port}", "-servername", "{host}"),
        ),
        setting="-proxy",
        stdin="GET / HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: close\r\n\r\n",
    ),
    "Python's urllib": Client(
        python(
            """
            import sys, urllib.error, urllib.request
            try:
                print(urllib.request.urlopen(sys.argv[1]).read().decode())
            except urllib.error.HTTPError as e:
                print(e.read().decode())
            """
        )
    ),
    "requests": Client(python("import requests, sys; print(requests.get(sys.argv[1]).text)")),
    "httpx": Client(python("import httpx, sys; print(httpx.get(sys.argv[1]).text)")),
    "httpx, HTTP/2": Client(
        python("import httpx, sys; print(httpx.Client(http2=True).get(sys.argv[1]).text)"), setting="http2=True"
    ),
    "aiohttp": Client(
        python(
            """
            import aiohttp, asyncio, sys
            async def main():
                async with aiohttp.ClientSession(trust_env=True) as session, session.get(sys.argv[1]) as response:
                    print(await response.text())
            asyncio.run(main())
            """
        ),
        setting="trust_env=True",
    ),
    "Node's https": Client(
        node(
            NODE_TUNNEL
            + """
            tunnel().then(socket => require('https').get(url, {createConnection: () => socket},
              response => response.pipe(process.stdout)));
            """
        ),
        setting="a CONNECT by node:http",
    ),
    "Node's fetch": Client(
        node(
            NODE_TUNNEL
            + """
            fetch('data:,').then(() => {  // the global dispatcher is there after the first fetch
              const Agent = globalThis[Symbol.for('undici.globalDispatcher.1')].constructor;
              const connect = (_, done) => tunnel().then(socket => done(null, socket), done);
              return fetch(url, {dispatcher: new Agent({connect})});
            }).then(response => response.text()).then(text => { console.log(text); process.exit(0); });
            """
        ),
        setting="an Agent whose connections are CONNECTs by node:http",
    ),
    "wget": Client(
        ("wget", "--quiet", "-O", "-", "--content-on-error", "--ca-certificate={trust}/bundle.pem", "{url}"),
        setting="--ca-certificate: wget reads no variable that says whom to trust",
    ),
    "git": Client(
        ("git", "-c", "protocol.version=0", "ls-remote", "{url}"),
        reads_problem=False,
        refused="The requested URL returned error: 403",
        path="/repo.git",
        allowed="",
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Scene:
    sidecar: Sidecar
    port: int

    def run(self, client: Client, host: str) -> subprocess.CompletedProcess[str]:
        if shutil.which(client.command[0]) is None:
            pytest.fail(f"needs {client.command[0]}")
        values = {
            "url": f"https://{host}:{self.port}{client.path}",
            "host": host,
            "port": str(self.port),
            "proxy": self.sidecar.proxy,
            "proxy_address": self.sidecar.listen,
            "trust": str(self.sidecar.trust),
        }

        def fill(text: str) -> str:
            for name, value in values.items():
                text = text.replace(f"{{{name}}}", value)
            return text

        return subprocess.run(
            [fill(word) for word in client.command],
            env=environment(proxy=self.sidecar.proxy, **_env_file(self.sidecar.trust / "env")),
            input=fill(client.stdin),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )


def _env_file(path: Path) -> dict[str, str]:
    return dict(line.split("=", 1) for line in path.read_text().splitlines())


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    folder = tmp_path_factory.mktemp("clients")
    root = Root(folder)
    with (
        serving(root.context("allowed.test")) as (port, _),
        running(
            folder / "sidecar",
            POLICY.format(port=port),
            *("--upstream-ca", str(root.pem), "--resolve", "allowed.test:127.0.0.1"),
        ) as sidecar,
    ):
        yield Scene(sidecar, port)


@pytest.mark.parametrize("name", CLIENTS)
def test_a_client_gets_what_is_allowed(scene: Scene, name: str) -> None:
    client = CLIENTS[name]
    before = len(scene.sidecar.events("request_closed"))
    done = scene.run(client, "allowed.test")

    assert done.returncode == 0, done
    assert client.allowed in done.stdout
    closed = until(lambda: scene.sidecar.events("request_closed")[before:], "closed request")
    assert [line["status"] for line in closed] == [200]
    assert not scene.sidecar.events("tls_handshake_failed")


@pytest.mark.parametrize("name", CLIENTS)
def test_a_client_reads_why_it_is_denied(scene: Scene, name: str) -> None:
    client = CLIENTS[name]
    before = len(scene.sidecar.events("request_denied"))
    done = scene.run(client, "denied.test")

    (denied,) = until(lambda: scene.sidecar.events("request_denied")[before:], f"denied request: {done}")
    assert (denied["reason"], denied["status"]) == ("rule_deny", 403)
    if client.reads_problem:
        problem = json.loads(done.stdout[done.stdout.index('{"type"') :])
        assert (problem["reason"], problem["request_id"]) == ("rule_deny", denied["request_id"])
        assert "rules[0] 'internal'" in problem["detail"]
    else:
        assert client.refused in done.stdout + done.stderr
