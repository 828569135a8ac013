"""
The fence check in real namespaces: with the fence everything is held, and each hole in it is found.

The sidecar and the checker run as different users; only the sidecar's group lets the checker use the control socket.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pytest

from sidecar.errors import Exit
from tests.live.pod import FORBIDDEN_CAPABILITIES, SIDECAR_UID, WORKLOAD_UID, Namespace, Pod, pods
from tests.live.sidecars import make_trust, until

pytestmark = [pytest.mark.live, pytest.mark.root]

SIDECAR: Final = [sys.executable, "-m", "sidecar"]
# Accepts TCP and UDP on each address/port, says nothing.
SINK: Final = """
import socket, sys, threading
def accept(s):
    while True:
        c, _ = s.accept(); threading.Thread(target=lambda: c.recv(100) and c.close(), daemon=True).start()
for bind in sys.argv[1:]:
    address, port = bind.split("/")
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    s = socket.socket(family); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.bind((address, int(port))); s.listen()
    threading.Thread(target=accept, args=(s,), daemon=True).start()
    socket.socket(family, socket.SOCK_DGRAM).bind((address, int(port)))
print("ready")
sys.stdin.read()
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    """Where both users get in: pytest's own folders are root's alone."""
    with tempfile.TemporaryDirectory(prefix="egress-test-") as name:
        path = Path(name)
        path.chmod(0o755)
        (path / "run").mkdir()
        make_trust(path)
        (path / "policy.yaml").write_text("version: 1\ndefault: deny\nrules: [{allow: [up.test], ports: [8443]}]\n")
        for each in (path / "run", *path.glob("ca"), *path.glob("ca/*")):
            os.chown(each, SIDECAR_UID, SIDECAR_UID)
        yield path


@pytest.fixture
def pod() -> Iterator[Pod]:
    with pods() as made:
        made.resolv_conf("nameserver 10.96.0.10\n")
        yield made


class Scene:
    """A pod with a sidecar in it."""

    def __init__(self, pod: Namespace, folder: Path) -> None:
        self.pod, self._folder = pod, folder
        self._control = folder / "run" / "control.sock"

    def check(self, *arguments: str, uid: int = WORKLOAD_UID) -> tuple[int, dict[str, Any]]:
        """The fence check's exit code, and its report; as *uid*, in the sidecar's group."""
        command = [*SIDECAR, "fence", "check", "--json", "--control-socket", str(self._control), *arguments]
        # Its group is what lets it use the socket; the rules look at the user alone.
        inside = self.pod.command(command, uid=uid)
        shell = [part.replace(f"--regid={uid}", f"--regid={SIDECAR_UID}") for part in inside]
        result = self.pod_run(shell)
        assert result[0] in (Exit.YES, Exit.NO), result
        return result[0], json.loads(result[1])

    @staticmethod
    def pod_run(command: Sequence[str]) -> tuple[int, str, str]:
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
        result = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment)
        return result.returncode, result.stdout, result.stderr

    def verdicts(self, *arguments: str, uid: int = WORKLOAD_UID) -> dict[str, str]:
        return {c["canary"]: c["verdict"] for c in self.check(*arguments, uid=uid)[1]["canaries"]}

    def ready(self) -> tuple[int, list[str]]:
        """The answer of /readyz, and its reasons; 0 where there is none yet."""
        code = "import http.client,sys; c=http.client.HTTPConnection('127.0.0.1',14120,timeout=10)\n"
        code += "c.request('GET','/readyz'); a=c.getresponse(); print(a.status); print(a.read().decode())"
        answer = self.pod.python(code, uid=WORKLOAD_UID).stdout.splitlines()
        if not answer:
            return 0, []
        return int(answer[0]), [reason["condition"] for reason in json.loads(answer[1])["reasons"]]

    def events(self, name: str) -> list[dict[str, Any]]:
        lines = (self._folder / "run" / "events.jsonl").read_text().splitlines(keepends=True)
        whole = (json.loads(line) for line in lines if line.endswith("\n"))
        return [event for event in whole if event["event"] == name]

    def failed(self, count: int) -> dict[str, str]:
        """What the *count* canaries of the last check saw that failed, once the events say so."""
        told = until(lambda: (found := self.events("canary_failed"))[count - 1 :] and found, f"{count} failed canaries")
        return {event["canary"]: event["seen"] for event in told}


@contextmanager
def sidecar(pod: Namespace, folder: Path, *arguments: str) -> Iterator[Scene]:
    run = folder / "run"
    command = [*SIDECAR, "run", "--transparent", "--ca-dir", str(folder / "ca"), *arguments]
    command += ["--policy", str(folder / "policy.yaml"), "--events", str(run / "events.jsonl")]
    command += ["--control-socket", str(run / "control.sock"), "--control-socket-mode", "0660"]
    process = pod.popen(command, uid=SIDECAR_UID)
    try:
        until(lambda: (run / "control.sock").exists() or process.popen.poll() is not None, "control socket")
        assert process.popen.poll() is None
        yield Scene(pod, folder)
    finally:
        process.kill()


def fence(pod: Namespace, *arguments: str) -> None:
    pod.run([*SIDECAR, "netfilter", *arguments], check=True)


def test_with_the_fence_everything_is_held_and_the_sidecar_becomes_ready(pod: Pod, folder: Path) -> None:
    fence(pod)
    with sidecar(pod, folder) as scene:
        until(lambda: scene.ready() == (503, ["redirect"]), "started, and not ready without a check")

        code, report = scene.check("--expect-allowed", "up.test:8443")

        assert (code, report["failures"]) == (Exit.YES, [])
        verdicts = {canary["canary"]: canary["verdict"] for canary in report["canaries"]}
        assert {name for name, verdict in verdicts.items() if verdict != "held"} == {"loopback", "allowed_up.test"}
        assert len(verdicts) > 25
        assert scene.ready() == (200, [])
        assert not scene.events("canary_failed")
        assert not scene.events("connection_denied"), "a canary is no denial"
        assert not scene.events("dns_denied")


def test_without_the_fence_the_same_canaries_fail_and_the_sidecar_says_so(pod: Pod, folder: Path) -> None:
    """And the Internet answers, so that what is seen is the lack of the fence and not of the way."""
    for address in ("192.0.2.1", "2001:db8::1", "169.254.169.254", "fd00:ec2::254"):
        pod.internet.ip("address", "add", address, "dev", "lo")
    ports = [f"{address}/{port}" for address in ("192.0.2.1", "2001:db8::1") for port in (443, 80, 22, 25)]
    pod.internet.serve(SINK, *ports, "169.254.169.254/80", "fd00:ec2::254/80")
    pod.sysctl(**{"net.ipv4.ping_group_range": "0 2147483647"})
    with sidecar(pod, folder) as scene:
        code, report = scene.check()

        verdicts = {canary["canary"]: canary["verdict"] for canary in report["canaries"]}
        assert code == Exit.NO
        assert not {name for name, verdict in verdicts.items() if verdict == "held"}
        through = {name for name, verdict in verdicts.items() if verdict == "got_through"}
        assert through >= {
            *(f"tcp_{port}_{version}" for port in (443, 80, 22, 25) for version in ("v4", "v6")),
            *("metadata_v4", "metadata_v6", "udp_443_v4", "udp_443_v6", "icmp_echo_v4", "icmp_echo_v6"),
            *("own_redirect_v4", "own_redirect_v6", "own_dns_v4", "own_dns_v4_udp", "own_control_v4"),
        }
        assert {verdicts[name] for name in ("dns_udp_v4", "dns_tcp_v6", "denied_name")} == {"unproven"}
        assert scene.ready() == (503, ["redirect"])
        failed = scene.failed(len(report["failures"]))
        assert failed.keys() == set(report["failures"])
        assert failed["udp_443_v4"] == "got_through: sent (192.0.2.1:443)"


@pytest.mark.parametrize(
    ("hole", "found"),
    [
        pytest.param(("--exclude-port", "25"), {"tcp_25_v4", "tcp_25_v6"}, id="an exempted port"),
        pytest.param(("--exclude-cidr", "169.254.0.0/16"), {"metadata_v4"}, id="the metadata address is exempted"),
        pytest.param(("--exclude-cidr", "2001:db8::/32"), None, id="a network is exempted"),
        pytest.param(("--control-port", "14199"), {"own_control_v4", "own_control_v6"}, id="the control port is open"),
        pytest.param(("--sidecar-uid", str(WORKLOAD_UID)), None, id="the workload's user is exempted"),
    ],
)
def test_each_hole_is_found(pod: Pod, folder: Path, hole: tuple[str, ...], found: set[str] | None) -> None:
    fence(pod, *hole)
    with sidecar(pod, folder) as scene:
        code, report = scene.check()

        assert code == Exit.NO
        if found is not None:
            assert set(report["failures"]) == found
        else:
            assert {"tcp_443_v6", "udp_443_v6"} <= set(report["failures"])
        assert scene.ready() == (503, ["redirect"])


def test_rules_that_drop_in_silence_prove_nothing(pod: Pod, folder: Path) -> None:
    pod.run(["nft", "-f", "-"], input=DROP, check=True)
    with sidecar(pod, folder) as scene:
        verdicts = scene.verdicts()

    assert {verdicts[f"tcp_443_{version}"] for version in ("v4", "v6")} == {"unproven"}
    assert verdicts["udp_443_v4"] == "held", "the kernel says so, whoever made it"


DROP: Final = """
table inet other {
    chain output {
        type filter hook output priority 0; policy drop;
        oif "lo" accept
    }
}
"""


def test_root_without_capabilities_proves_the_same(pod: Pod, folder: Path) -> None:
    fence(pod)
    with sidecar(pod, folder) as scene:
        control = folder / "run" / "control.sock"
        control.chmod(0o666)  # this root can't override permissions
        command = [*SIDECAR, "fence", "check", "--json", "--control-socket", str(control)]
        result = pod.run(command, uid=0, drop=FORBIDDEN_CAPABILITIES, timeout=60)
        assert (result.returncode, json.loads(result.stdout)["failures"]) == (Exit.YES, []), result.stderr
        assert scene.ready() == (200, [])


def test_pings_are_refused_where_the_system_lets_everyone_ping(pod: Pod, folder: Path) -> None:
    fence(pod)
    pod.sysctl(**{"net.ipv4.ping_group_range": "0 2147483647"})
    with sidecar(pod, folder) as scene:
        canaries = {canary["canary"]: canary for canary in scene.check()[1]["canaries"]}

    for name, seen in (
        ("icmp_echo_v4", "refused by the kernel: EPERM"),
        ("icmp_echo_v6", "refused by this machine"),
    ):
        assert (canaries[name]["verdict"], canaries[name]["seen"]) == ("held", seen)


@pytest.mark.parametrize(
    ("make", "skipped"),
    [
        pytest.param(lambda: Pod(ipv6=False), 6, id="a pod without IPv6"),
        pytest.param(lambda: Pod(ipv4=False), 4, id="a pod without IPv4"),
    ],
)
def test_a_family_that_the_pod_lacks_is_skipped(folder: Path, make: Callable[[], Pod], skipped: int) -> None:
    with pods(make) as pod:
        pod.resolv_conf(f"nameserver {'10.96.0.10' if skipped == 6 else '2001:db8:51::53'}\n")
        fence(pod)
        with sidecar(pod, folder) as scene:
            code, report = scene.check()

    verdicts = {canary["canary"]: canary["verdict"] for canary in report["canaries"]}
    assert (code, report["failures"]) == (Exit.YES, [])
    assert verdicts[f"tcp_443_v{skipped}"] == verdicts[f"dns_udp_v{skipped}"] == "skipped"
    assert verdicts[f"tcp_443_v{10 - skipped}"] == "held"


def test_an_address_without_a_route_proves_nothing(folder: Path) -> None:
    with pods(lambda: Pod(default_route=False)) as pod:
        pod.resolv_conf("nameserver 10.96.0.10\n")
        fence(pod)
        with sidecar(pod, folder) as scene:
            assert scene.verdicts()["tcp_443_v4"] == "unproven"


def test_in_report_mode_a_failed_check_is_told_and_no_more(pod: Pod, folder: Path) -> None:
    fence(pod, "--exclude-port", "25")
    with sidecar(pod, folder, "--fence", "report") as scene:
        assert scene.check()[0] == Exit.NO
        assert scene.ready() == (200, [])
        assert scene.failed(2).keys() == {"tcp_25_v4", "tcp_25_v6"}


def test_the_workload_can_neither_ask_nor_report(pod: Pod, folder: Path) -> None:
    fence(pod)
    with sidecar(pod, folder) as scene:
        control = str(folder / "run" / "control.sock")
        # As `pod.command` makes it: the workload's user, in its own group.
        inside = pod.command([*SIDECAR, "fence", "check", "--control-socket", control], uid=WORKLOAD_UID)
        code, _, stderr = scene.pod_run(inside)
        assert code == Exit.CANNOT_RUN, stderr
        assert "this user may not use it" in stderr
        assert scene.ready() == (503, ["redirect"])


def test_a_sidecar_that_was_killed_comes_back_ready(pod: Pod, folder: Path) -> None:
    fence(pod)
    with sidecar(pod, folder) as scene:
        assert scene.check()[0] == Exit.YES
    with sidecar(pod, folder) as scene:
        until(lambda: scene.ready() == (200, []), "ready, by the report that was kept")
