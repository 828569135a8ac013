"""Bad input ends the program at once: one clear line on stderr, exit 2 or 3, no traceback, nothing written."""

import os
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from sidecar.bootstrap import Order, bootstrap
from tests.live.sidecars import make_trust

pytestmark = pytest.mark.live

BAD, CANNOT = 2, 3


class Here:
    """A folder in which everything is right, until a test breaks one thing."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ca, self.trust = make_trust(folder)
        self.policy, self.events = folder / "policy.yaml", folder / "events.jsonl"
        self.policy.write_text("version: 1\n")
        self.listen = "127.0.0.1:0"
        self.more: list[str] = []

    def run(self) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "sidecar", "run", "--policy", str(self.policy), "--ca-dir", str(self.ca)]
        command += ["--listen", self.listen, "--events", str(self.events), *self.more]
        environment = {k: v for k, v in os.environ.items() if not k.startswith("EGRESS_")}
        return subprocess.run(
            command, cwd=self.folder, env=environment, capture_output=True, text=True, timeout=60, check=False
        )


def no_ca(here: Here) -> None:
    here.ca = here.folder / "nowhere"


def empty_ca_folder(here: Here) -> None:
    for path in here.ca.iterdir():
        path.unlink()


def empty_ca(here: Here) -> None:
    (here.ca / "ca.pem").write_text("")


def unreadable_ca(here: Here) -> None:
    (here.ca / "ca-key.pem").unlink()
    (here.ca / "ca-key.pem").mkdir()  # root reads every file, but no folder


def half_a_ca(here: Here) -> None:
    (here.ca / "ca-key.pem").unlink()


def mismatched_ca(here: Here) -> None:
    other, _ = make_trust(here.folder / "other")
    (here.ca / "ca-key.pem").write_bytes((other / "ca-key.pem").read_bytes())


def expired_ca(here: Here) -> None:
    here.ca = here.folder / "old"
    long_ago = datetime.now(UTC) - timedelta(days=9)
    bootstrap(Order(common_name="old", ca_dir=here.ca, trust_dir=here.folder / "old-trust"), long_ago)


def no_policy(here: Here) -> None:
    here.policy.unlink()


def empty_policy(here: Here) -> None:
    here.policy.write_text("")


def policy_that_is_no_yaml(here: Here) -> None:
    here.policy.write_text("version: 1\nrules: [\n")


def policy_with_an_unknown_key(here: Here) -> None:
    here.policy.write_text("version: 1\nrule: []\n")


def policy_with_a_wrong_pattern(here: Here) -> None:
    here.policy.write_text('version: 1\nrules:\n  - allow: ["*example.com"]\n')


def policy_that_is_a_folder(here: Here) -> None:
    here.policy.unlink()
    here.policy.mkdir()


def port_that_is_no_number(here: Here) -> None:
    here.listen = "127.0.0.1:http"


def listen_name(here: Here) -> None:
    here.listen = "example.com:14101"


def unknown_address(here: Here) -> None:
    here.listen = "203.0.113.7:0"  # a documentation address: no machine has it


def events_in_a_missing_folder(here: Here) -> None:
    here.events = here.folder / "missing" / "events.jsonl"


def events_into_a_folder(here: Here) -> None:
    here.events = here.folder


def missing_upstream_ca(here: Here) -> None:
    here.more = ["--upstream-ca", str(here.folder / "missing.pem")]


def empty_upstream_ca(here: Here) -> None:
    (here.folder / "empty.pem").write_text("")
    here.more = ["--upstream-ca", str(here.folder / "empty.pem")]


def malformed_resolve(here: Here) -> None:
    here.more = ["--resolve", "example.com"]


@pytest.mark.parametrize(
    ("breaks", "code", "says"),
    [
        (no_ca, BAD, "nowhere does not exist"),
        (empty_ca_folder, BAD, "ca holds no CA"),
        (empty_ca, BAD, "ca.pem"),
        (unreadable_ca, CANNOT, "ca-key.pem: Is a directory"),
        (half_a_ca, BAD, "ca-key.pem is missing"),
        (mismatched_ca, BAD, "ca-key.pem does not belong to"),
        (expired_ca, BAD, "ca.pem"),
        (no_policy, BAD, "policy.yaml: can't be read: no such file"),
        (empty_policy, BAD, "policy.yaml"),
        (policy_that_is_no_yaml, BAD, "policy.yaml:"),
        (policy_with_an_unknown_key, BAD, "policy.yaml:2:1: "),
        (policy_with_a_wrong_pattern, BAD, "write 'example.com' or '*.example.com'"),
        (policy_that_is_a_folder, BAD, "policy.yaml"),
        (port_that_is_no_number, BAD, "--listen '127.0.0.1:http' isn't ADDRESS:PORT"),
        (listen_name, BAD, "--listen 'example.com:14101' isn't ADDRESS:PORT"),
        (unknown_address, CANNOT, "this machine has no such address"),
        (events_in_a_missing_folder, CANNOT, "events can't be written there"),
        (events_into_a_folder, CANNOT, "events can't be written there"),
        (missing_upstream_ca, BAD, "missing.pem: can't be read"),
        (empty_upstream_ca, BAD, "empty.pem"),
        (malformed_resolve, BAD, "--resolve 'example.com' isn't NAME:ADDRESS"),
    ],
)
def test_one_line_says_what_is_wrong(tmp_path: Path, breaks: Callable[[Here], None], code: int, says: str) -> None:
    here = Here(tmp_path)
    breaks(here)
    before = sorted(tmp_path.rglob("*"))

    done = here.run()

    assert done.returncode == code, done.stderr
    assert says in done.stderr
    one_line(done.stderr)
    assert done.stdout == ""
    assert sorted(tmp_path.rglob("*")) == before, "nothing is half-written"


def one_line(stderr: str) -> None:
    assert stderr.startswith("sidecar: ")
    assert stderr.count("\n") == 1, stderr
    assert "PRIVATE KEY" not in stderr


def test_a_port_in_use_is_said(tmp_path: Path) -> None:
    here = Here(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        here.listen = f"127.0.0.1:{taken.getsockname()[1]}"
        done = here.run()

    assert done.returncode == CANNOT
    assert "the port is in use" in done.stderr
    one_line(done.stderr)
    assert not here.events.exists()


@pytest.mark.parametrize(
    ("kind", "option"),
    [
        pytest.param(socket.SOCK_STREAM, "--transparent-port", id="redirected TCP"),
        pytest.param(socket.SOCK_DGRAM, "--dns-port", id="redirected DNS over UDP"),
        pytest.param(socket.SOCK_STREAM, "--dns-port", id="redirected DNS over TCP"),
    ],
)
def test_a_port_in_use_names_the_option_that_asked_for_it(tmp_path: Path, kind: socket.SocketKind, option: str) -> None:
    here = Here(tmp_path)
    with socket.socket(socket.AF_INET, kind) as taken:
        taken.bind(("127.0.0.1", 0))
        if kind == socket.SOCK_STREAM:
            taken.listen()
        other = "--dns-port" if option == "--transparent-port" else "--transparent-port"
        here.more = ["--transparent", "--allow-root", option, str(taken.getsockname()[1]), other, str(free_port())]
        done = here.run()

    assert done.returncode == CANNOT
    assert f"{option} 127.0.0.1 port" in done.stderr
    assert "the port is in use" in done.stderr
    one_line(done.stderr)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        pytest.param(["run", "--polcy", "p.yaml"], "--policy", id="a typo in an option is corrected"),
        pytest.param(["run", "--drain-seconds", "-1"], "--drain-seconds", id="a number out of range"),
        pytest.param(["run", "--event-level", "loud"], "loud", id="a level that there isn't"),
        pytest.param(["runn"], "runn", id="a subcommand that there isn't"),
        pytest.param(["exec", "--polcy", "p.yaml", "--", "true"], "--policy", id="a typo in an option of exec"),
        pytest.param(["exec"], "COMMAND", id="exec without a command"),
        pytest.param(["exec", "-p", "missing.yaml", "--", "true"], "missing.yaml", id="exec without its policy"),
    ],
)
def test_a_wrong_command_line_is_bad_input(arguments: list[str], says: str) -> None:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("EGRESS_")}
    done = subprocess.run(
        [sys.executable, "-m", "sidecar", *arguments],
        env=environment | {"NO_COLOR": "1", "COLUMNS": "120"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert done.returncode == BAD
    assert says in done.stderr
    one_line(done.stderr)
    assert done.stdout == ""


def test_a_policy_of_many_mistakes_tells_each_on_a_line_of_its_own(tmp_path: Path) -> None:
    here = Here(tmp_path)
    here.policy.write_text("version: 2\ndefault: perhaps\nrules:\n  - allow: [42]\n")

    done = here.run()

    assert done.returncode == BAD
    lines = done.stderr.splitlines()
    assert len(lines) >= 3
    assert all("policy.yaml:" in line for line in lines)
    assert "Traceback" not in done.stderr


def test_without_a_home_or_a_writable_folder_it_starts_all_the_same(tmp_path: Path) -> None:
    here = Here(tmp_path)
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "sidecar",
            "run",
            *("--policy", str(here.policy), "--ca-dir", str(here.ca), "--listen", "127.0.0.1:0"),
        ],
        env={"PATH": os.environ["PATH"], "HOME": "/nonexistent"},
        cwd="/",
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        assert b"session_started" in process.stdout.readline()
        process.terminate()
        _, stderr = process.communicate(timeout=60)
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        process.wait()

    assert (process.returncode, stderr) == (0, b"")
