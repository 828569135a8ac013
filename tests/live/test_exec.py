"""``sidecar exec``: a session around one command, of which nothing is left."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.live.sidecars import SECONDS, check_lines, until
from tests.live.upstreams import Root, serving

pytestmark = pytest.mark.live

POLICY = """
version: 1
rules:
  - allow: ["allowed.test"]
    ports: [{port}]
network:
  allow_addresses: ["127.0.0.1"]
"""

FETCH = """
import sys, urllib.error, urllib.request
for url in sys.argv[1:]:
    try:
        print(urllib.request.urlopen(url).status)
    except urllib.error.HTTPError as e:
        print(e.code, e.read().decode())
"""
SHOW = "import json, os; print(json.dumps(dict(os.environ)))"
# Says where its trust folder and its proxy are, then waits for a signal; of SIGTERM it makes exit code 7.
WAIT = """
import os, signal, sys
signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))
print(os.environ["SSL_CERT_FILE"], os.environ["HTTPS_PROXY"], os.getpid(), flush=True)
while True:
    signal.pause()
"""


@dataclass(frozen=True)
class Scene:
    folder: Path
    root: Root
    port: int

    def command(self, *command: str, options: Sequence[str] = ()) -> list[str]:
        own = ["--policy", str(self.folder / "policy.yaml"), "--upstream-ca", str(self.root.pem)]
        own += ["--resolve", "allowed.test:127.0.0.1", *options]
        return [sys.executable, "-m", "sidecar", "exec", *own, "--", *command]

    def environment(self, tmp: Path) -> dict[str, str]:
        """A user's, with a temporary folder of its own and an exception from the proxy that must not count."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith("EGRESS_")}
        return kept | {"TMPDIR": str(tmp), "NO_PROXY": "allowed.test", "no_proxy": "allowed.test"}

    def run(self, tmp: Path, *command: str, options: Sequence[str] = ()) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*command, options=options),
            env=self.environment(tmp),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=40,
            check=False,
        )


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    folder = tmp_path_factory.mktemp("exec")
    root = Root(folder)
    with serving(root.context("allowed.test")) as (port, _):
        (folder / "policy.yaml").write_text(POLICY.format(port=port))
        yield Scene(folder, root, port)


def events_in(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines() if line.startswith('{"event"')]


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        pytest.param("import sys; sys.exit(0)", 0, id="success"),
        pytest.param("import sys; sys.exit(3)", 3, id="its own code"),
        pytest.param("import os; os.kill(os.getpid(), 9)", 128 + 9, id="killed by a signal"),
    ],
)
def test_the_exit_code_is_the_commands(scene: Scene, tmp_path: Path, code: str, expected: int) -> None:
    assert scene.run(tmp_path, sys.executable, "-c", code).returncode == expected


def test_a_session_around_a_command(scene: Scene, tmp_path: Path) -> None:
    urls = [f"https://{name}.test:{scene.port}/" for name in ("allowed", "denied")]
    done = scene.run(tmp_path, sys.executable, "-c", FETCH, *urls)

    assert done.returncode == 0, done.stderr
    allowed, denied = done.stdout.splitlines()[:2]
    assert allowed == "200"
    assert denied.startswith("403 ") and json.loads(denied[4:])["reason"] == "default_deny"
    lines = events_in(done.stderr)
    check_lines(lines)
    assert [line["host"] for line in lines if line["event"] == "request_closed"] == ["allowed.test"]
    assert [line["host"] for line in lines if line["event"] == "request_denied"] == ["denied.test"]
    assert "the command is cooperative" in done.stderr
    assert "denied.test" in done.stderr.rpartition('"session_ended"')[2].partition("\n")[2], "a summary for humans"
    assert list(tmp_path.iterdir()) == []


def test_the_command_is_told_whom_to_trust_and_where_the_proxy_is(scene: Scene, tmp_path: Path) -> None:
    done = scene.run(tmp_path, sys.executable, "-c", SHOW)

    child = json.loads(done.stdout)
    (listen,) = events_in(done.stderr)[0]["listen"]
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy", "ALL_PROXY"):
        assert child[name] == f"http://{listen}"
    assert (child["NO_PROXY"], child["no_proxy"]) == ("", "")
    for name in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "GIT_SSL_CAINFO"):
        assert child[name].startswith(str(tmp_path))
    assert child["NODE_EXTRA_CA_CERTS"].endswith("ca.pem")
    assert "PRIVATE KEY" not in done.stdout + done.stderr


def test_the_cas_key_is_nowhere_the_command_can_read(scene: Scene, tmp_path: Path) -> None:
    look = "import os, pathlib, sys; folder = pathlib.Path(os.environ['SSL_CERT_FILE']).parent\n"
    look += "print(oct(folder.stat().st_mode & 0o777), *sorted(p.name for p in folder.iterdir()))\n"
    look += "print(any(b'PRIVATE' in p.read_bytes() for p in pathlib.Path(os.environ['TMPDIR']).rglob('*')"
    look += " if p.is_file()))\n"
    look += "print(b'PRIVATE' in pathlib.Path(f'/proc/{os.getppid()}/environ').read_bytes())"
    done = scene.run(tmp_path, sys.executable, "-c", look)

    assert done.stdout.splitlines() == ["0o700 bundle.pem ca.pem truststore.jks truststore.p12", "False", "False"]


def test_events_go_to_a_file_if_asked_for(scene: Scene, tmp_path: Path) -> None:
    events = scene.folder / "events.jsonl"
    done = scene.run(tmp_path, "true", options=["--events", str(events), "--quiet"])

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    check_lines(events_in(events.read_text()))
    assert events.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("words", [["--version"], ["-x", "--policy", "other"], ["--", "-q"]])
def test_what_follows_the_command_is_its_own(scene: Scene, tmp_path: Path, words: list[str]) -> None:
    done = scene.run(tmp_path, sys.executable, "-c", "import sys; print(sys.argv[1:])", *words)

    assert done.stdout == f"{words}\n"


def test_a_command_that_is_not_there_is_said(scene: Scene, tmp_path: Path) -> None:
    done = scene.run(tmp_path, "no-such-command", options=["--quiet", "--events", "/dev/null"])

    assert done.returncode == 3
    assert done.stderr.startswith("sidecar: 'no-such-command' isn't a program on the PATH")
    assert done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        pytest.param(signal.SIGTERM, 7, id="SIGTERM reaches the command, whose exit code counts"),
        pytest.param(signal.SIGINT, 128 + 2, id="SIGINT ends the command"),
    ],
)
def test_nothing_is_left_after_a_signal(scene: Scene, tmp_path: Path, number: signal.Signals, expected: int) -> None:
    wait = WAIT if number is signal.SIGTERM else "import signal; signal.signal(2, signal.SIG_DFL)\n" + WAIT
    process = subprocess.Popen(
        scene.command(sys.executable, "-c", wait),
        env=scene.environment(tmp_path),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        assert process.stdout is not None
        bundle, proxy, child = process.stdout.readline().split()
        assert Path(bundle).is_file()
        process.send_signal(number)
        _, stderr = process.communicate(timeout=SECONDS)
    finally:
        process.kill()
        process.wait()

    assert process.returncode == expected, stderr
    assert "Traceback" not in stderr
    check_lines(events_in(stderr))
    assert list(tmp_path.iterdir()) == []
    until(lambda: not psutil.pid_exists(int(child)), "end of the command")
    port = int(proxy.rpartition(":")[2])
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), SECONDS)


def test_its_ca_lives_as_long_as_it_is_told(scene: Scene, tmp_path: Path) -> None:
    events = tmp_path / "events.jsonl"

    scene.run(tmp_path, "true", options=["--validity-hours", "48", "--events", str(events)])

    (loaded,) = (line for line in map(json.loads, events.read_text().splitlines()) if line["event"] == "ca_loaded")
    begin, end = (datetime.fromisoformat(loaded[name]) for name in ("not_before", "not_after"))
    assert end - begin == timedelta(hours=48 + 2)  # an hour before and after, for clocks that disagree
