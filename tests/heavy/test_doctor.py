"""
The doctor in a container beside the workload's: it sees that one's processes and shares its network, as in a pod.

The workload is locked down and has three faults: a client with a store of its own, a variable that its owner has set,
a system's file that can't be written. What the doctor prints is applied as it stands, and all is well.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pytest

from sidecar.builtin import TRUST_HOST
from tests.heavy.images import ROOT, Images, need
from tests.live.pod import SIDECAR_UID
from tests.live.sidecars import make_trust, running, until

pytestmark = [pytest.mark.live, pytest.mark.root, pytest.mark.heavy, pytest.mark.timeout(1500)]

PROXY: Final = "http://127.0.0.1:14101"
TRUST: Final = "/etc/egress/trust"
SYSTEM: Final = "/etc/ssl/certs/ca-certificates.crt"
CLIENTS: Final = ("curl", "node", "java", "apt", "urllib")
LOCKED_DOWN: Final = ("--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges")
NAME: Final = f"egress-doctor-{os.getpid()}"
VARIABLES: Final = {
    "HTTPS_PROXY": PROXY,
    "https_proxy": PROXY,
    "NODE_EXTRA_CA_CERTS": f"{TRUST}/ca.pem",
    "CURL_CA_BUNDLE": f"{TRUST}/bundle.pem",
    "SSL_CERT_FILE": "/etc/company.pem",  # its owner's, from before there was a sidecar
}
type Report = dict[str, Any]


class Scene:
    """A sidecar's container, and folders on the host that are mounted."""

    def __init__(self, images: Images, folder: Path) -> None:
        self.images, self.folder = images, folder
        self.sidecar = f"{NAME}-sidecar"
        ca, self.trust = make_trust(folder)
        for path in (ca, *ca.iterdir()):
            os.chown(path, SIDECAR_UID, SIDECAR_UID)
        (folder / "policy.yaml").write_text("version: 1\n")
        mounts = ["--volume", f"{ca}:/run/egress/ca:ro", "--volume", f"{folder}/policy.yaml:/policy.yaml:ro"]
        command = ["run", "--listen", "127.0.0.1:14101", "--ca-dir", "/run/egress/ca", "--policy", "/policy.yaml"]
        locked = (*LOCKED_DOWN, "--network", "none")
        images.run("run", "--detach", "--name", self.sidecar, *locked, *mounts, images.sidecar, *command)
        until(lambda: "session_started" in images.run("logs", self.sidecar).stdout or None, "started sidecar")

    @contextmanager
    def workload(self, script: str = "", more: str = "") -> Iterator[str]:
        """
        Run the workload's container, and give its name.

        Args:
            script: Lines of shell in which its environment is changed before its program starts.
            more: Options of ``podman run``, as a line of shell in which ``$TRUST_DIR`` is the trust folder.
        """
        name = f"{NAME}-workload"
        company = self.folder / "company.pem"
        company.write_text(self.images.run("run", "--rm", self.images.workload, "cat", SYSTEM).stdout)
        options = ["--detach", "--name", name, *LOCKED_DOWN, "--network", f"container:{self.sidecar}"]
        options += ["--volume", f"{self.trust}:{TRUST}:ro", "--volume", f"{company}:/etc/company.pem:ro"]
        options += [word for item in VARIABLES.items() for word in ("--env", "=".join(item))]
        inside = f"{script}\nexec sleep infinity"
        command = self.images.command("run", *options)
        shell = ["sh", "-ec", f'image=$1 inside=$2; shift 2; "$@" {more} "$image" sh -ec "$inside"', "sh"]
        done = subprocess.run(
            [*shell, self.images.workload, inside, *command],
            env={
                **os.environ,
                "TRUST_DIR": str(self.trust),
                "CONTAINERS_CONF": str(self.images.folder / "containers.conf"),
            },
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        try:
            yield name
        finally:
            self.images.run("rm", "--force", "--time", "0", name, check=False)

    def doctor(self, workload: str, code: int) -> Report:
        """As docs/doctor.md has it for an ephemeral container."""
        beside = ["--pid", f"container:{workload}", "--network", f"container:{self.sidecar}"]
        privileges = ["--user", "0", "--cap-drop", "ALL"]
        for capability in ("SYS_CHROOT", "SYS_PTRACE", "SETUID", "SETGID"):
            privileges += ["--cap-add", capability]
        only = [word for client in CLIENTS for word in ("--only", client)]
        command = ["trust", "doctor", "--pid", "1", "--json", *only]
        done = self.images.run(
            "run", "--rm", "--read-only", *beside, *privileges, self.images.sidecar, *command, check=False, timeout=240
        )
        assert done.returncode == code, (done.stdout, done.stderr)
        report: Report = json.loads(done.stdout)
        return report


@pytest.fixture(scope="module")
def scene(images: Images, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    try:
        yield Scene(images, tmp_path_factory.mktemp("doctor"))
    finally:
        images.run("rm", "--force", "--time", "0", f"{NAME}-sidecar", check=False)


def of(report: Report) -> Mapping[str, Report]:
    return {each["client"]: each for each in report["clients"]}


def fixes(report: Report, how: str) -> list[str]:
    found = (fix for each in report["clients"] for fix in each["fixes"] if fix["how"] == how)
    return list(dict.fromkeys(fix["text"] for fix in found))


def test_three_faults_are_named_and_what_is_printed_mends_them(scene: Scene) -> None:
    with scene.workload() as workload:
        sick = scene.doctor(workload, code=1)

    found = of(sick)
    assert {name: each["outcome"] for name, each in found.items()} == {
        "curl": "trusted",
        "node": "trusted",
        "java": "untrusted",
        "apt": "untrusted",
        "urllib": "untrusted",
    }
    assert "keystore of its own" in found["java"]["why"]
    assert "SSL_CERT_FILE is set to /etc/company.pem, which lacks the session CA" in found["urllib"]["why"]
    assert "is read-only" in found["apt"]["why"]
    assert fixes(sick, "mount") == [f'--volume "$TRUST_DIR/bundle.pem:{SYSTEM}:ro"']
    assert f"export SSL_CERT_FILE={TRUST}/bundle.pem" in fixes(sick, "set")

    with scene.workload("\n".join(fixes(sick, "set")), " ".join(fixes(sick, "mount"))) as workload:
        for line in fixes(sick, "run"):
            scene.images.run("exec", workload, "sh", "-ec", line)
        well = scene.doctor(workload, code=0)

    assert {each["outcome"] for each in well["clients"]} == {"trusted"}
    assert len(well["clients"]) == len(sick["clients"])


def test_without_the_capabilities_it_says_which_are_needed(scene: Scene) -> None:
    with scene.workload() as workload:
        beside = ["--pid", f"container:{workload}", "--network", f"container:{scene.sidecar}"]
        done = scene.images.run(
            *("run", "--rm", *LOCKED_DOWN, *beside, scene.images.sidecar, "trust", "doctor", "--pid", "1"), check=False
        )

    assert done.returncode == 3
    assert "SYS_CHROOT, SYS_PTRACE, SETUID and SETGID" in done.stderr


def test_a_browser_with_a_database_of_its_own_is_mended_by_the_printed_line(tmp_path: Path) -> None:
    need("chromium", "certutil")
    with running(tmp_path / "sidecar", "version: 1\n") as sidecar:
        variables = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}
        variables |= {"https_proxy": sidecar.proxy, "CURL_CA_BUNDLE": str(sidecar.trust / "bundle.pem")}
        command = [sys.executable, "-m", "sidecar", "trust", "doctor", "--json", "--only", "chromium"]
        command += ["--timeout-seconds", "110"]

        def doctor() -> Report:
            done = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=120, check=False)
            report: Report = json.loads(done.stdout)
            return report

        (line,) = fixes(doctor(), "run")
        subprocess.run(["sh", "-ec", line], env=variables, check=True)

        assert doctor()["trusted"] is True
        sidecar.event("request_allowed")
        assert {line["host"] for line in sidecar.events("request_allowed")} == {TRUST_HOST}
        assert not sidecar.events("request_denied"), "a browser asks its maker for nothing"
