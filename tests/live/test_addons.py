"""Addons of the user's own run behind the verdict: they refuse and change, and loosen nothing."""

import http.client
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.live.sidecars import Sidecar, running

pytestmark = pytest.mark.live
DOCS = Path(__file__).parents[2] / "docs" / "addons.md"

GUEST = """
import asyncio, logging
from mitmproxy import ctx, exceptions, http, connection

class Guest:
    def load(self, loader):
        loader.add_option("guest_word", str, "hello", "For the test.")

    async def requestheaders(self, flow):
        await asyncio.sleep(0)
        what = flow.request.path.rpartition("/")[2]
        if what == "answer":
            flow.response = http.Response.make(200, ctx.options.guest_word)
        elif what == "kill":
            flow.kill()
        elif what == "fail":
            raise RuntimeError("boom")
        elif what == "undeny":
            flow.response = None
        elif what == "path-ok":
            flow.request.path = "/ok/changed"
        elif what == "path-denied":
            flow.request.path = "/secret/x"
        elif what == "method":
            flow.request.method = "DELETE"
        elif what == "host":
            flow.request.host = "127.0.0.2"
        elif what == "header":
            flow.request.headers["host"] = "other.test"
        elif what == "option":
            try:
                ctx.options.update(connection_strategy="eager")
            except exceptions.OptionsError:
                flow.request.headers["x-option"] = "refused " + ctx.options.connection_strategy
        elif what == "stream":
            flow.request.stream = False

    def request(self, flow):
        match flow.request.path.rsplit("/", 1)[-1]:
            case "late-path":
                flow.request.path = "/secret/x"
            case "late-method":
                flow.request.method = "DELETE"
            case "late-host":
                flow.request.host = "127.0.0.2"
            case "late-header":
                flow.request.headers["host"] = "other.test"
            case "late-answer":
                flow.response = http.Response.make(418, "late")
            case "late-fail":
                raise RuntimeError("boom")

    def responseheaders(self, flow):
        if flow.request.path.endswith("upper"):
            flow.response.stream = lambda data: data.upper()
        if flow.request.path.endswith("broken"):
            raise RuntimeError("boom")

    def server_connect(self, data):
        data.server.error = data.server.error and None

addons = [Guest()]
"""


class Upstream(BaseHTTPRequestHandler):
    seen: list[tuple[str, str, dict[str, str]]]

    def do_GET(self) -> None:
        type(self).seen.append((self.command, self.path, {k.lower(): v for k, v in self.headers.items()}))
        self.rfile.read(int(self.headers.get("content-length", 0)))
        self.send_response(200)
        self.send_header("Content-Length", "5")
        self.end_headers()
        self.wfile.write(b"plain")

    do_POST = do_DELETE = do_GET

    def log_message(self, *_: Any) -> None:
        pass


@dataclass
class Scene:
    sidecar: Sidecar
    port: int
    seen: list[tuple[str, str, dict[str, str]]]

    def ask(self, path: str, method: str = "GET", body: bytes | None = None) -> tuple[int, bytes]:
        client = http.client.HTTPConnection("127.0.0.1", self.sidecar.port, timeout=30)
        client.request(method, f"http://127.0.0.1:{self.port}{path}", body=body)
        answer = client.getresponse()
        content = answer.read()
        client.close()
        return answer.status, content


def policy(port: int) -> str:
    return (
        "version: 1\nnetwork: {allow_addresses: [127.0.0.0/8]}\nrules:\n"
        f"  - {{allow: [127.0.0.1, 127.0.0.2], ports: [{port}], methods: [GET, POST], paths: ['/ok/**']}}\n"
    )


@pytest.fixture(scope="module")
def upstream() -> Iterator[ThreadingHTTPServer]:
    Upstream.seen = []
    with ThreadingHTTPServer(("127.0.0.1", 0), Upstream) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def scene_of(folder: Path, upstream: ThreadingHTTPServer, text: str) -> Iterator[Scene]:
    file, port = folder / "guest.py", int(upstream.server_address[1])
    file.write_text(text)
    with running(folder, policy(port), "--addon", str(file)) as sidecar:
        yield Scene(sidecar, port, Upstream.seen)
        log = folder / "stderr.txt"
        assert log.read_text().count("Traceback") == log.read_text().count("RuntimeError: boom"), log.read_text()
        log.write_bytes(b"")  # which `running` takes for defects


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory, upstream: ThreadingHTTPServer) -> Iterator[Scene]:
    yield from scene_of(tmp_path_factory.mktemp("addons"), upstream, GUEST)


@pytest.mark.parametrize(
    ("path", "status", "body", "arrives"),
    [
        pytest.param("/ok/x", 200, b"plain", "/ok/x", id="who changes nothing"),
        pytest.param("/ok/answer", 200, b"hello", None, id="answers what was allowed, by an option of its own"),
        pytest.param("/ok/path-ok", 200, b"plain", "/ok/changed", id="changes to an allowed path"),
        pytest.param("/ok/upper", 200, b"PLAIN", "/ok/upper", id="changes a streamed body"),
        pytest.param("/ok/stream", 200, b"plain", "/ok/stream", id="can't turn streaming off"),
        pytest.param("/ok/path-denied", 403, b"default_deny", None, id="can't change to a denied path"),
        pytest.param("/ok/method", 403, b"default_deny", None, id="can't change to a denied method"),
        pytest.param("/ok/host", 403, b"identity_mismatch", None, id="can't change the host, not to an allowed one"),
        pytest.param("/ok/header", 403, b"identity_mismatch", None, id="can't change the Host header"),
        pytest.param("/secret/undeny", 403, b"default_deny", None, id="can't undo a denial"),
        pytest.param("/ok/fail", 503, b"internal_error", None, id="refuses where it fails"),
        pytest.param("/ok/late-path", 403, b"default_deny", None, id="can't change the path in `request` either"),
        pytest.param("/ok/late-method", 403, b"default_deny", None, id="nor the method"),
        pytest.param("/ok/late-host", 403, b"identity_mismatch", None, id="nor the host"),
        pytest.param("/ok/late-header", 403, b"identity_mismatch", None, id="nor the Host header"),
        pytest.param("/ok/late-fail", 503, b"internal_error", None, id="refuses where it fails in `request`"),
    ],
)
def test_an_addon(scene: Scene, path: str, status: int, body: bytes, arrives: str | None) -> None:
    before = len(scene.seen)

    answered, content = scene.ask(path)

    assert (answered, body in content) == (status, True), content
    assert [seen for _, seen, _ in scene.seen[before:]] == ([arrives] if arrives else [])
    if status != 200:
        assert scene.sidecar.event("request_denied", path=path)["reason"].encode() == body
    else:
        scene.sidecar.event("request_closed", path=path)


def test_a_killed_request_is_closed_once_and_nothing_arrives(scene: Scene) -> None:
    before = len(scene.seen)

    with pytest.raises((http.client.HTTPException, OSError)):
        scene.ask("/ok/kill")

    assert scene.sidecar.event("request_failed", path="/ok/kill")
    assert len(scene.seen) == before


def test_an_answer_whose_hook_fails_is_not_passed_on(scene: Scene) -> None:
    with pytest.raises((http.client.HTTPException, OSError)):
        scene.ask("/ok/broken")

    assert scene.sidecar.event("request_failed", path="/ok/broken")["reason"] == "internal_error"


def test_an_option_that_undoes_a_promise_is_taken_back(scene: Scene) -> None:
    scene.ask("/ok/option")

    assert scene.seen[-1][2]["x-option"] == "refused lazy"


def test_the_example_of_the_documentation(tmp_path: Path, upstream: ThreadingHTTPServer) -> None:
    example = re.search(r"```python\n(.*?)```", DOCS.read_text(), re.DOTALL)
    assert example is not None
    for scene in scene_of(tmp_path, upstream, example[1]):
        assert scene.ask("/ok/up", "POST", b"x" * 2000) == (413, b"too large an upload\n")
        assert scene.ask("/ok/up", "POST", b"x" * 10) == (200, b"plain")
        assert scene.seen[-1][2]["x-session"] == "42"


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        pytest.param(None, r": no Python file is there; name one that ends in \.py and can be read", id="no file"),
        pytest.param("def (", r":1: SyntaxError: .*; mend it, or leave it out", id="no Python"),
        pytest.param("\nimport nonesuch", r":2: ModuleNotFoundError: .*nonesuch", id="an import fails"),
        pytest.param("addons = 3", r": 'addons' is not a list; write 'addons = \[MyAddon\(\)\]'", id="no list"),
        pytest.param("def load(loader): 1 / 0", r": ZeroDivisionError: ", id="load fails"),
        pytest.param(
            "from mitmproxy import ctx\ndef load(loader): ctx.options.update(connection_strategy='eager')",
            r": OptionsError: connection_strategy would undo", id="an option that undoes a promise",
        ),
    ],
)  # fmt: skip
def test_a_file_that_cannot_be_used_is_exit_2(tmp_path: Path, text: str | None, complaint: str) -> None:
    file, rules = tmp_path / "guest.py", tmp_path / "policy.yaml"
    rules.write_text("version: 1\n")
    if text is not None:
        file.write_text(text)
    command = [sys.executable, "-m", "sidecar", "exec", "--policy", str(rules), "--addon", str(file), "--", "true"]

    done = subprocess.run(command, capture_output=True, text=True, check=False)

    assert done.returncode == 2
    assert re.search(f"^sidecar: --addon {re.escape(str(file))}{complaint}", done.stderr, re.MULTILINE), done.stderr
    assert "Traceback" not in done.stderr
