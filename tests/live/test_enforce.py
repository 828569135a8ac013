"""``sidecar exec --enforce``: nothing gets out of the command's namespaces but through the sidecar."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from tests.live.pod import INTERNET_V4, INTERNET_V6, POD_V4, POD_V6, Pod, pods
from tests.live.sidecars import SECONDS, until
from tests.live.upstreams import Root, Seen, serving

pytestmark = pytest.mark.live

NOBODY = 65534
POLICY = """
version: 1
rules:
  - allow: ["allowed.test"]
    ports: [{port}]
network:
  allow_addresses: ["127.0.0.1"]
"""


@pytest.fixture(scope="module", autouse=True)
def namespaces() -> None:
    """User namespaces are what all this rests on."""
    tools = ["unshare", "setpriv", "curl", "sh"]
    missing = [tool for tool in tools if shutil.which(tool) is None]
    if not missing and subprocess.run(["unshare", "-Un", "true"], capture_output=True).returncode:
        missing = ["user namespaces"]
    if missing:
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(f"needs {', '.join(missing)}")


@dataclass(frozen=True)
class Scene:
    folder: Path
    port: int
    seen: Seen

    def line(self, *command: str, enforce: bool = True, options: Sequence[str] = ()) -> list[str]:
        exec_ = [sys.executable, "-m", "sidecar", "exec", "--policy", str(self.folder / "policy.yaml"), "--quiet"]
        exec_ += ["--upstream-ca", str(self.folder / "upstream-root.pem"), "--resolve", "allowed.test:127.0.0.1"]
        return [*exec_, *(["--enforce"] if enforce else []), *options, "--", *command]

    def run(self, *command: str, prefix: Sequence[str] = (), **options: Any) -> subprocess.CompletedProcess[str]:
        """Run *command* to its end; events are on standard error."""
        line = [*prefix, *self.line(*command, **options)]
        return subprocess.run(line, capture_output=True, text=True, timeout=60, env=variables())

    def python(self, code: str, *arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
        return self.run(sys.executable, "-c", code, *arguments, **options)


def variables() -> dict[str, str]:
    return {k: v for k, v in os.environ.items() if not k.startswith("EGRESS_")}


@pytest.fixture(scope="module")
def scene() -> Iterator[Scene]:
    with ExitStack() as stack:
        # Not pytest's: nobody else can read in there.
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="egress-test-")))
        folder.chmod(0o755)
        root = Root(folder)
        port, seen = stack.enter_context(serving(root.context("allowed.test")))
        (folder / "policy.yaml").write_text(POLICY.format(port=port))
        yield Scene(folder, port, seen)


def events(result: subprocess.CompletedProcess[str], name: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in result.stderr.splitlines() if line.startswith("{")]
    return [line for line in lines if line["event"] == name]


# ── what gets out

# Prints, for each address and port, the error's name or what came back.
CONNECT = """
import errno, socket, sys
for host, port in zip(sys.argv[1::2], sys.argv[2::2]):
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.settimeout(5)
    try:
        sock.connect((host, int(port)))
        print(sock.recv(100).decode())
    except OSError as e:
        print(errno.errorcode.get(e.errno, e))
"""
GREETER = """
import socket, sys, threading
def greet(server):
    while True:
        sock, _ = server.accept()
        sock.sendall(b"through")
        sock.close()
for family, host in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")):
    server = socket.socket(family)
    if family == socket.AF_INET6:
        server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    server.bind((host, 7777))
    server.listen()
    threading.Thread(target=greet, args=(server,)).start()
print("ready", flush=True)
"""


@pytest.fixture(scope="module")
def pod() -> Iterator[Pod]:
    with pods() as pod:
        pod.internet.serve(GREETER)
        pod.serve(GREETER)
        yield pod


@pytest.mark.root
def test_a_raw_connection_gets_out_only_without_the_fence(scene: Scene, pod: Pod) -> None:
    outside = [INTERNET_V4[0], INTERNET_V6[0], str(POD_V4), str(POD_V6), "127.0.0.1", "::1"]
    command = (sys.executable, "-c", CONNECT, *(word for address in outside for word in (address, "7777")))

    assert pod.run(scene.line(*command, enforce=False)).stdout.split() == ["through"] * 6

    fenced = pod.run(scene.line(*command))
    assert fenced.stdout.split() == ["ENETUNREACH"] * 4 + ["ECONNREFUSED"] * 2, fenced
    assert fenced.returncode == 0


# Tries each thing and prints its outcome by name; what raises has its error's name as outcome.
SURVEY = """
import ctypes, errno, fcntl, json, os, pty, socket, subprocess, sys, termios, threading, urllib.request

port, abstract, outside, folder = int(sys.argv[1]), "\\0" + sys.argv[2], int(sys.argv[3]), sys.argv[4]
libc = ctypes.CDLL(None, use_errno=True)

def own_loopback():
    server = socket.create_server(("127.0.0.1", 0))
    def serve():
        sock, _ = server.accept()
        sock.recv(1000)
        sock.sendall(b"HTTP/1.0 200 OK\\r\\n\\r\\nmine")
        sock.close()
    threading.Thread(target=serve).start()
    return urllib.request.urlopen(f"http://127.0.0.1:{server.getsockname()[1]}/").read().decode()

def call(*arguments):
    if libc.syscall(*arguments) < 0:
        raise OSError(ctypes.get_errno(), "")

def type_into_own_terminal():
    child, _ = pty.fork()
    if child == 0:
        try:
            fcntl.ioctl(0, termios.TIOCSTI, b"x")
        except OSError as e:
            os._exit(e.errno)
        os._exit(0)
    if number := os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]):
        raise OSError(number, "")

def status():
    lines = [line.split() for line in open("/proc/self/status")]
    return {line[0].rstrip(":"): line[1:] for line in lines if line[0][:3] in ("Uid", "Gid", "Cap", "NoN")}

tried = {
    "loopback": lambda: socket.create_connection(("127.0.0.1", port)),
    "udp": lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"x", ("192.0.2.53", 53)),
    "abstract": lambda: socket.socket(socket.AF_UNIX).connect(abstract),
    "vsock": lambda: socket.socket(40, socket.SOCK_STREAM),
    "packet": lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW),
    "netlink": lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW).close(),
    "tiocsti": type_into_own_terminal,
    "io_uring": lambda: call(425, 1, ctypes.create_string_buffer(200)),
    "own loopback": own_loopback,
    "status": status,
    "signal": lambda: os.kill(outside, 9),
    "number": os.getpid,
    "owner": lambda: (open(folder + "/made", "w").close(), os.stat(folder + "/made").st_uid)[1],
    "link down": lambda: subprocess.check_call(["ip", "link", "set", "lo", "down"], stderr=subprocess.DEVNULL),
    "unmount": lambda: subprocess.check_call(["umount", "/proc"], stderr=subprocess.DEVNULL),
    "enter": lambda: open("/proc/1/ns/net").close(),
}
seen = {}
for name, attempt in tried.items():
    try:
        seen[name] = attempt()
    except OSError as e:
        seen[name] = errno.errorcode[e.errno]
    except subprocess.CalledProcessError:
        seen[name] = "refused"
print(json.dumps(seen, default=str))
"""


@pytest.fixture(scope="module")
def survey(scene: Scene) -> dict[str, Any]:
    """What a program in there sees, once for all of the following tests."""
    name = f"egress-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX) as server, subprocess.Popen(["sleep", "60"]) as outside:
        server.bind(f"\0{name}")
        server.listen()
        result = scene.python(SURVEY, str(scene.port), name, str(outside.pid), str(scene.folder))
        alive = outside.poll() is None
        outside.kill()
    assert result.returncode == 0, result
    seen: dict[str, Any] = json.loads(result.stdout)
    return seen | {"outside is alive": alive}


@pytest.mark.parametrize(
    ("what", "outcome"),
    [
        pytest.param("loopback", "ECONNREFUSED", id="services on the host's loopback aren't there"),
        pytest.param("udp", "ENETUNREACH", id="UDP has no route, so that DNS fails at once"),
        pytest.param("abstract", "ECONNREFUSED", id="abstract Unix sockets of the host aren't there"),
        pytest.param("vsock", "EAFNOSUPPORT", id="the host of a virtual machine can't be asked for"),
        pytest.param("packet", "EAFNOSUPPORT", id="there are no packet sockets"),
        pytest.param("netlink", None, id="netlink works"),
        pytest.param("tiocsti", "EPERM", id="nothing can be typed into the terminal"),
        pytest.param("io_uring", "ENOSYS", id="io_uring can't make sockets past the filter"),
        pytest.param("own loopback", "mine", id="the command's own loopback works, past the proxy"),
        pytest.param("signal", "ESRCH", id="processes outside have no number in there"),
        pytest.param("outside is alive", True, id="and aren't hit by chance"),
        pytest.param("number", 2, id="the command is the second process of its namespace"),
        pytest.param("owner", os.getuid(), id="files have the user's own number"),
        pytest.param("link down", "refused", id="the network can't be changed"),
        pytest.param("unmount", "refused", id="mounts can't be changed"),
        pytest.param("enter", "EACCES", id="the helper's namespaces can't be opened"),
    ],
)
def test_inside(survey: dict[str, Any], what: str, outcome: object) -> None:
    assert survey[what] == outcome


def test_no_capability_is_left_and_the_user_is_kept(survey: dict[str, Any]) -> None:
    status = survey["status"]
    assert (status["Uid"], status["Gid"]) == ([str(os.getuid())] * 4, [str(os.getgid())] * 4)
    assert [status[f"Cap{kind}"] for kind in ("Inh", "Prm", "Eff", "Bnd", "Amb")] == [["0" * 16]] * 5
    assert status["NoNewPrivs"] == ["1"]


def test_the_proxy_variables_lead_to_what_policy_allows(scene: Scene) -> None:
    got = scene.run("curl", "-sS", f"https://allowed.test:{scene.port}/fenced")

    assert got.stdout == f"hello from allowed.test:{scene.port}\n", got
    assert [line["path"] for line in events(got, "request_closed")] == ["/fenced"]
    assert ("GET", "/fenced") in [request[:2] for request in scene.seen.requests]


def test_a_denied_name_reads_its_403(scene: Scene) -> None:
    got = scene.run("curl", "-sS", "-w", "%{http_code}", "-o", "/dev/null", "https://denied.test/")
    assert got.stdout == "403", got


@pytest.mark.root
def test_it_works_without_root(scene: Scene) -> None:
    result = scene.run("sh", "-c", f"id -u; curl -sS https://allowed.test:{scene.port}/", prefix=as_nobody())

    assert result.returncode == 0, result
    assert result.stdout == f"{NOBODY}\nhello from allowed.test:{scene.port}\n"


def as_nobody() -> list[str]:
    """Nobody, who may read files besides: the interpreter may lie in a private home."""
    if os.geteuid() != 0:
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)("needs root")
    ids = [f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
    return ["setpriv", *ids, "--inh-caps", "-all,+dac_read_search", "--ambient-caps", "-all,+dac_read_search", "--"]


# ── beginning and end


@pytest.mark.parametrize(
    ("script", "code"),
    [
        pytest.param("(sleep 300 &); exit 7", 7, id="the command's own, and what it leaves behind ends with it"),
        pytest.param("kill -9 $$", 137, id="128 + N for a signal"),
    ],
)
def test_the_exit_code_is_the_command_s(scene: Scene, script: str, code: int) -> None:
    assert scene.run("sh", "-c", script, options=["--events", "/dev/null"]).returncode == code


def test_a_program_that_can_t_be_run_is_an_error(scene: Scene, tmp_path: Path) -> None:
    (tmp_path / "broken").write_bytes(b"\x7fELF nonsense")
    (tmp_path / "broken").chmod(0o755)
    result = scene.run(str(tmp_path / "broken"))
    assert result.returncode == 3
    assert "can't be run: Exec format error" in result.stderr


@pytest.fixture
def started(scene: Scene, tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A running command that exits with 42 on SIGTERM; its process id outside."""
    code = "import os, signal, sys\nsignal.signal(15, lambda *_: sys.exit(42))\nprint('up', flush=True)\nsignal.pause()"
    line = scene.line(sys.executable, "-c", code, f"mark-{tmp_path.name}", options=["--events", "/dev/null"])
    with subprocess.Popen(line, stdout=subprocess.PIPE, text=True, env=variables()) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        yield process, _process_with(f"mark-{tmp_path.name}")
        process.kill()


def _process_with(mark: str) -> int:
    """The process whose last argument is *mark*: the command, not the sidecar, whose arguments hold an ``exec``."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            arguments = (folder / "cmdline").read_text().split("\0")
        except OSError:
            continue
        if mark in arguments and "exec" not in arguments:
            return int(folder.name)
    raise AssertionError("the command isn't running")


def test_sigterm_is_passed_on(started: tuple[subprocess.Popen[str], int]) -> None:
    process, _ = started
    process.send_signal(signal.SIGTERM)
    assert process.wait(SECONDS) == 42


def test_the_command_ends_with_the_sidecar(started: tuple[subprocess.Popen[str], int]) -> None:
    process, command = started
    assert Path("/proc", str(command)).exists()
    process.kill()
    process.wait(SECONDS)
    until(lambda: not Path("/proc", str(command)).exists(), "end of the command")


# ── where it can't be


@pytest.mark.parametrize("sysctl", ["max_user_namespaces", "max_net_namespaces"])
def test_where_namespaces_are_refused_the_command_is_not_run(scene: Scene, tmp_path: Path, sysctl: str) -> None:
    script = f'echo 0 > /proc/sys/user/{sysctl} && exec "$@"'
    made = tmp_path / "made"
    result = scene.run("touch", str(made), prefix=["unshare", "-Ur", "sh", "-c", script, "sh"])

    assert result.returncode == 3, result
    assert f"sysctl user.{sysctl} is 0; have it raised" in result.stderr
    assert not made.exists()
    assert "Traceback" not in result.stderr
