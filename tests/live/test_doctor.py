"""
``sidecar trust doctor`` beside a workload: in a mount namespace with seeded faults, each client really asks.

The workload is a process of another user; the doctor finds its root, its variables and its user by its process id.
"""

import json
import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pytest

from tests.live.intercepted import SYSTEM_BUNDLE, Zone, intercepted
from tests.live.pod import INTERNET_V4, WORKLOAD_UID, need_root_and
from tests.live.sidecars import Sidecar, running, until

pytestmark = [pytest.mark.live, pytest.mark.root]

PATH: Final = "/usr/local/bin:/usr/bin:/bin"
CLIENTS: Final = ("curl", "git", "wget", "java")
type Report = dict[str, Any]


class Container:
    """A mount namespace of its own, with a folder mounted where the workload finds its trust."""

    def __init__(self, folder: Path, trust: Path, proxy: str) -> None:
        self.folder, self.trust, self._proxy = folder, trust, proxy
        self._holder = subprocess.Popen(
            ["unshare", "--mount", "--propagation", "private", "sh", "-c", "echo ready; exec sleep 1000"],
            stdout=subprocess.PIPE,
        )
        assert self._holder.stdout is not None
        assert self._holder.stdout.readline() == b"ready\n"

    def run(self, line: str) -> None:
        """Run a line of shell in it, as root."""
        enter = ["nsenter", "--mount", f"--target={self._holder.pid}", "--wdns=/"]
        done = subprocess.run([*enter, "sh", "-ec", line], capture_output=True, text=True, check=False)
        assert done.returncode == 0, (line, done.stdout, done.stderr)

    def cover(self, path: str, *, read_only: bool) -> None:
        """Put a copy of a file over it, so that this machine's own stays as it is."""
        source = os.path.realpath(path)
        copy = self.folder / f"copy-of-{Path(path).name}"
        copy.write_bytes(Path(source).read_bytes())
        self.run(f"mount --bind {copy} {source}")
        if read_only:
            self.run(f"mount -o remount,bind,ro {source}")

    @contextmanager
    def workload(self, variables: Mapping[str, str], *lines: str) -> Iterator[int]:
        """Start a workload with these variables, and what *lines* of shell make of them; gives its process id."""
        script = "\n".join([*lines, "echo ready >&2", "exec sleep 1000"])
        user = ["setpriv", f"--reuid={WORKLOAD_UID}", f"--regid={WORKLOAD_UID}", "--clear-groups"]
        proxies = dict.fromkeys(("HTTPS_PROXY", "https_proxy"), self._proxy)
        process = subprocess.Popen(
            ["nsenter", "--mount", f"--target={self._holder.pid}", "--wdns=/", *user, "sh", "-ec", script],
            env={"PATH": PATH, "HOME": str(self.folder / "home"), **proxies, **variables},
            stderr=subprocess.PIPE,
        )
        try:
            assert process.stderr is not None
            assert process.stderr.readline() == b"ready\n"
            yield until(lambda: process.pid if _name(process.pid) == "sleep" else None, "workload")
        finally:
            process.kill()
            process.wait()

    def doctor(self, pid: int, *only: str, code: int) -> Report:
        return doctor("--pid", str(pid), *(word for name in only for word in ("--only", name)), code=code)

    def close(self) -> None:
        self._holder.kill()
        self._holder.wait()


def _name(pid: int) -> str:
    return Path(f"/proc/{pid}/comm").read_text().strip()


def doctor(*arguments: str, code: int, **variables: str) -> Report:
    command = [sys.executable, "-m", "sidecar", "trust", "doctor", "--json", *arguments]
    variables = {"PATH": PATH, "PYTHONPATH": str(Path(__file__).parents[2]), **variables}
    done = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == code, (done.stdout, done.stderr)
    report: Report = json.loads(done.stdout) if done.stdout else {"error": done.stderr}
    return report


def outcomes(report: Report) -> dict[str, str]:
    return {each["client"]: each["outcome"] for each in report["clients"]}


@pytest.fixture(scope="module")
def sidecar(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sidecar]:
    need_root_and("unshare", "nsenter", "curl", "git", "wget", "java", "keytool")
    with running(tmp_path_factory.mktemp("doctor"), "version: 1\n") as sidecar:
        yield sidecar


@pytest.fixture
def container(sidecar: Sidecar) -> Iterator[Container]:
    # Not pytest's folder, which is root's alone: the workload is another user.
    with tempfile.TemporaryDirectory(prefix="egress-") as made:
        folder = Path(made)
        folder.chmod(0o755)
        (folder / "home").mkdir()
        os.chown(folder / "home", WORKLOAD_UID, WORKLOAD_UID)
        trust = folder / "trust"
        trust.mkdir(mode=0o755)
        for file in sidecar.trust.rglob("*"):
            if file.is_file():
                (trust / file.relative_to(sidecar.trust)).parent.mkdir(exist_ok=True, parents=True)
                (trust / file.relative_to(sidecar.trust)).write_bytes(file.read_bytes())
        container = Container(folder, trust, sidecar.proxy)
        try:
            yield container
        finally:
            container.close()


def variables_of(trust: Path, *names: str) -> dict[str, str]:
    return {name: str(trust / ("ca.pem" if name == "NODE_EXTRA_CA_CERTS" else "bundle.pem")) for name in names}


def test_three_seeded_faults_are_named_and_their_fixes_mend_them(container: Container, sidecar: Sidecar) -> None:
    container.cover(SYSTEM_BUNDLE, read_only=True)  # wget reads nothing else
    container.cover("/etc/ssl/certs/java/cacerts", read_only=False)  # Java has a store of its own
    own = container.folder / "company.pem"
    own.write_bytes(Path(SYSTEM_BUNDLE).read_bytes())
    own.chmod(0o644)
    variables = variables_of(container.trust, "GIT_SSL_CAINFO", "SSL_CERT_FILE") | {"CURL_CA_BUNDLE": str(own)}

    with container.workload(variables) as pid:
        found = container.doctor(pid, *CLIENTS, code=1)

    assert (found["trusted"], found["proxy"]) == (False, sidecar.proxy)
    assert (found["trust_folder"], found["trust_folder_mounted"]) == (str(container.trust), True)
    assert outcomes(found) == {"curl": "untrusted", "git": "trusted", "wget": "untrusted"} | {"java": "untrusted"}
    of = {each["client"]: each for each in found["clients"]}
    assert of["curl"]["read"] == f"CURL_CA_BUNDLE={own}"
    assert "lacks the session CA, and it wins over SSL_CERT_FILE" in of["curl"]["why"]
    assert [fix["how"] for fix in of["wget"]["fixes"]] == ["mount"]
    assert "is read-only" in of["wget"]["why"]
    assert "keystore of its own" in of["java"]["why"]

    fixes = [fix for each in found["clients"] for fix in each["fixes"]]
    for fix in fixes:
        if fix["how"] == "run":
            container.run(fix["text"])
        elif fix["how"] == "mount":
            option, value = shlex.split(fix["text"].replace("$TRUST_DIR", str(container.trust)))
            source, target, mode = value.split(":")
            assert (option, mode) == ("--volume", "ro")
            container.run(f"mount --bind {source} {target}")
    with container.workload(variables, *(fix["text"] for fix in fixes if fix["how"] == "set")) as pid:
        mended = container.doctor(pid, *CLIENTS, code=0)

    assert set(outcomes(mended).values()) == {"trusted"}
    assert mended["trusted"] is True
    assert not any(each["fixes"] or each["why"] for each in mended["clients"])


def test_clients_run_as_the_workload_without_any_privilege(container: Container) -> None:
    """A program of the workload notes what it is; were it root with capabilities, it could leave its root."""
    tools = container.folder / "tools"
    tools.mkdir()
    note = container.folder / "home" / "note"
    (tools / "wget").write_text(
        f"#!/bin/sh\ngrep -E '^(Uid|Gid|Cap(Prm|Eff|Amb)|NoNewPrivs)' /proc/$$/status >{note}\n"
    )
    (tools / "wget").chmod(0o755)

    with container.workload({"PATH": f"{tools}:{PATH}"}) as pid:
        assert outcomes(container.doctor(pid, "wget", code=1)) == {"wget": "failed"}

    fields = {line.split()[0]: line.split()[1:] for line in note.read_text().splitlines()}
    assert set(fields["Uid:"] + fields["Gid:"]) == {str(WORKLOAD_UID)}
    assert {int(fields[name][0], 16) for name in ("CapPrm:", "CapEff:", "CapAmb:")} == {0}
    assert fields["NoNewPrivs:"] == ["1"]


def test_root_in_the_workload_has_no_privilege_either(container: Container, sidecar: Sidecar) -> None:
    """`--root` alone keeps the user, who is root here; what is run must not be able to do what root can."""
    tools = container.folder / "tools"
    tools.mkdir()
    note = container.folder / "note"
    (tools / "wget").write_text(
        f"#!/bin/sh\nid -u >{note}; chroot / true 2>>{note}; grep CapEff /proc/$$/status >>{note}\n"
    )
    (tools / "wget").chmod(0o755)

    doctor("--root", "/", "--only", "wget", code=1, HTTPS_PROXY=sidecar.proxy, PATH=f"{tools}:/usr/sbin:{PATH}")

    user, refused, capabilities = note.read_text().splitlines()
    assert (user, int(capabilities.split()[1], 16)) == ("0", 0)
    assert "Operation not permitted" in refused


def test_the_workloads_files_are_never_imported(container: Container) -> None:
    """Its root has a Python, too: a module of the doctor's that is found there would run in the doctor."""
    folder = Path(sys.prefix) / "lib"
    container.run(f"mount --bind {container.folder / 'home'} {folder}")
    container.run(f"mount --bind {container.folder / 'home'} {Path(__file__).parents[2]}")

    with container.workload(variables_of(container.trust, "CURL_CA_BUNDLE")) as pid:
        assert outcomes(container.doctor(pid, "curl", "wget", code=1)) == {"curl": "trusted", "wget": "untrusted"}


def test_a_client_that_never_ends_is_killed_with_its_children(container: Container) -> None:
    tools = container.folder / "tools"
    tools.mkdir()
    note = container.folder / "home" / "child"
    (tools / "wget").write_text(f"#!/bin/sh\nsleep 1000 & echo $! >{note}; wait\n")
    (tools / "wget").chmod(0o755)

    with container.workload({"PATH": f"{tools}:{PATH}"}) as pid:
        report = doctor("--pid", str(pid), "--only", "wget", "--timeout-seconds", "2", code=1)

    assert outcomes(report) == {"wget": "timed_out"}
    child = int(note.read_text())
    until(lambda: not _runs(child), "end of the child")


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_another_sessions_trust_folder_is_not_taken_for_this_ones(sidecar: Sidecar, tmp_path: Path) -> None:
    variables = variables_of(sidecar.trust, "CURL_CA_BUNDLE")
    with running(tmp_path / "other", "version: 1\n") as other:
        report = doctor("--only", "curl", "--proxy", other.proxy, code=1, **variables)

    assert outcomes(report) == {"curl": "untrusted"}
    assert report["trust_folder_mounted"] is False


def test_where_connections_are_redirected_no_proxy_is_needed() -> None:
    need_root_and("nft", "curl", "wget")
    with intercepted(policy="version: 1\n", zone=Zone(names={"a.test": [INTERNET_V4[0]]})) as scene:
        command = (sys.executable, "-m", "sidecar", "trust", "doctor", "--json", "--only", "curl", "--only", "wget")
        plain = scene.run(*command, PYTHONPATH=str(Path(__file__).parents[2]))
        mounted = scene.run(*command, system_trust=True, PYTHONPATH=str(Path(__file__).parents[2]))

        assert (plain.returncode, mounted.returncode) == (1, 0), (plain, mounted)
        assert outcomes(json.loads(plain.stdout)) == {"curl": "trusted", "wget": "untrusted"}
        assert json.loads(mounted.stdout)["proxy"] is None
        assert scene.requests() == []
