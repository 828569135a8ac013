"""What the process gives up at start, seen from outside: in /proc, as another process of the same user, and as root."""

import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from sidecar.errors import CannotRun, SidecarError
from sidecar.hardening import User, effective_capabilities, parse_user, refuse_root, within_descriptors
from sidecar.limits import Limits
from tests.live.sidecars import running

DENY = "version: 1\ndefault: deny\n"
UID = 14137
ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize(
    ("text", "user"),
    [
        pytest.param("14137", User(14137, 14137), id="the group has the user's number"),
        pytest.param("14137:99", User(14137, 99), id="or one of its own"),
    ],
)
def test_parse_user(text: str, user: User) -> None:
    assert parse_user(text) == user


@pytest.mark.parametrize("text", ["0", "1:0", "nobody", "1:", "-1", "4294967295", "", "1:2:3"])
def test_a_user_is_written_in_numbers_and_is_not_root(text: str) -> None:
    with pytest.raises(SidecarError, match="write numbers"):
        parse_user(text)


def test_capabilities_are_read_by_name(tmp_path: Path) -> None:
    status = tmp_path / "status"
    status.write_text("Name:\tx\nCapEff:\t0000000000003400\n")
    assert effective_capabilities(status) == ("net_bind_service", "net_admin", "net_raw")
    status.write_text("CapEff:\t0000000000000000\n")
    assert effective_capabilities(status) == ()
    assert effective_capabilities(tmp_path / "none") == ()


def need_root(*tools: str) -> None:
    missing = [] if os.geteuid() == 0 else ["root"]
    missing += [tool for tool in tools if subprocess.run(["which", tool], capture_output=True).returncode]
    if missing:
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(f"needs {', '.join(missing)}")


def test_root_is_refused_in_transparent_mode_only() -> None:
    need_root()
    refuse_root(transparent=False, allow_root=False, user=None)
    refuse_root(transparent=True, allow_root=True, user=None)
    refuse_root(transparent=True, allow_root=False, user=User(UID, UID))
    with pytest.raises(CannotRun, match="doesn't run as root"):
        refuse_root(transparent=True, allow_root=False, user=None)


@pytest.mark.live
def test_the_command_refuses_root_in_transparent_mode() -> None:
    need_root()
    result = subprocess.run(
        [sys.executable, "-m", "sidecar", "run", "--transparent"], capture_output=True, text=True, cwd=ROOT
    )
    assert (result.returncode, result.stdout) == (3, "")
    assert "give --user 14137" in result.stderr


def status(pid: int) -> dict[str, list[str]]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.split() for name, _, value in (line.partition(":") for line in lines)}


def limits(pid: int) -> dict[str, list[str]]:
    lines = Path(f"/proc/{pid}/limits").read_text().splitlines()[1:]
    return {line[:26].strip(): line[26:].split()[:2] for line in lines}


# The interpreter may lie in a private home, so each of them may read every file; which opens no process.
AS_USER: Final = (
    *("setpriv", f"--reuid={UID}", f"--regid={UID}", "--clear-groups", "--inh-caps=-all,+dac_read_search"),
    *("--ambient-caps=-all,+dac_read_search", "--bounding-set=-all,+dac_read_search", "--"),
)
PIPES: Final[dict[str, Any]] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}


@pytest.mark.live
def test_a_started_sidecar_gains_nothing_and_dumps_nothing(tmp_path: Path) -> None:
    with running(tmp_path, DENY, "--health-listen", "none") as sidecar:
        pid = sidecar.process.pid
        assert status(pid)["NoNewPrivs"] == ["1"]
        assert limits(pid)["Max core file size"] == ["0", "0"]


@pytest.fixture
def folder() -> Iterator[Path]:
    """Not pytest's, which is root's alone: the policy is watched by the user that the sidecar runs as."""
    with tempfile.TemporaryDirectory(prefix="egress-test-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.mark.live
@pytest.mark.root
def test_root_becomes_an_ordinary_user_without_groups_and_capabilities(folder: Path) -> None:
    need_root()
    with running(folder, DENY, "--health-listen", "none", "--user", str(UID)) as sidecar:
        seen = status(sidecar.process.pid)
        assert seen["Uid"] == seen["Gid"] == [str(UID)] * 4
        assert seen["Groups"] == []
        assert {int(seen[name][0], 16) for name in ("CapEff", "CapPrm", "CapInh", "CapAmb")} == {0}


@pytest.mark.live
@pytest.mark.root
def test_nobody_of_the_same_user_reads_its_memory(folder: Path) -> None:
    need_root("setpriv")
    (folder / "run").mkdir()
    os.chown(folder / "run", UID, UID)
    events = folder / "run" / "events.jsonl"
    (folder / "events.jsonl").symlink_to(events)
    command = ["sh", "-c", f'chown -R {UID} "$1"; shift; exec "$@"', "sh", str(folder / "ca")]
    command += [*AS_USER, sys.executable, "-m", "sidecar", "run", "--ca-dir", str(folder / "ca")]
    command += ["--policy", str(folder / "policy.yaml"), "--events", str(events)]
    command += ["--listen", "127.0.0.1:0", "--health-listen", "none"]

    with (
        running(folder, DENY, command=command) as sidecar,
        subprocess.Popen([*AS_USER, sys.executable, "-c", "print(flush=True); input()"], **PIPES) as other,
    ):
        assert other.stdout is not None
        other.stdout.readline()

        def read(pid: int) -> str:
            return subprocess.run(
                [*AS_USER, "cat", f"/proc/{pid}/environ"], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
            ).stderr

        assert read(other.pid) == "", "an ordinary process of that user is open to the user's others"
        assert "Permission denied" in read(sidecar.process.pid)
        other.communicate("\n")


# Arguments: the one folder that stays writable, the command.
READ_ONLY = """
mount --bind "$1" "$1" && mount -o remount,bind,ro / || exit 8
touch /written 2>/dev/null && exit 9
shift
exec "$@"
"""


@pytest.mark.live
@pytest.mark.root
def test_it_runs_on_a_read_only_root_without_any_capability(tmp_path: Path) -> None:
    need_root("setpriv", "unshare", "mount")
    command = ["unshare", "--mount", "sh", "-c", READ_ONLY, "sh", str(tmp_path)]
    command += ["setpriv", "--no-new-privs", "--bounding-set=-all", "--inh-caps=-all", "--clear-groups", "--"]
    command += [sys.executable, "-m", "sidecar", "run", "--ca-dir", str(tmp_path / "ca")]
    command += ["--policy", str(tmp_path / "policy.yaml"), "--events", str(tmp_path / "events.jsonl")]
    command += ["--control-socket", str(tmp_path / "control"), "--listen", "127.0.0.1:0", "--health-listen", "none"]

    with running(tmp_path, DENY, command=command) as sidecar:
        seen = status(sidecar.process.pid)
        assert {int(seen[name][0], 16) for name in ("CapEff", "CapPrm", "CapInh", "CapAmb", "CapBnd")} == {0}
        with socket.create_connection(("127.0.0.1", sidecar.port), 10) as client:
            client.sendall(b"GET http://denied.test/ HTTP/1.1\r\nHost: denied.test\r\n\r\n")
            assert client.recv(12) == b"HTTP/1.1 403"


@pytest.mark.parametrize(
    ("limits", "levels"),
    [
        pytest.param(Limits(), [], id="nobody has asked for as many as the defaults are"),
        pytest.param(Limits(client_connections=5000), ["WARNING"], id="fewer than were asked for"),
        pytest.param(Limits(client_connections=10, upstream_connections=10), [], id="there are enough"),
    ],
)  # fmt: skip
def test_connections_beyond_the_descriptors_are_told_of(
    limits: Limits, levels: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("WARNING"):
        fitting = within_descriptors(limits, 1024)

    assert fitting.client_connections + fitting.upstream_connections < 1024
    assert [record.levelname for record in caplog.records] == levels
