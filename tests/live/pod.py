"""
A pod's network for tests: one namespace that workload and sidecar share, and one that plays the Internet.

    with Pod() as pod:
        pod.internet.serve(SERVER)
        answer = pod.python(CLIENT, INTERNET_V4[0], uid=WORKLOAD_UID)

One veth pair joins them. The Internet's addresses are documentation ones, so nothing here can reach a real host, and
neither namespace has another link. All is removed at the end, as is what a run that was killed has left behind.
"""

import itertools
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from types import TracebackType
from typing import IO, Final, Self

import pytest

ROOT: Final = Path(__file__).parents[2]
SIDECAR_UID: Final = 14137
WORKLOAD_UID: Final = 1000

# Addresses of the Internet, all of one host.
INTERNET_V4: Final = ("203.0.113.10", "203.0.113.20", "198.51.100.53")
INTERNET_V6: Final = ("2001:db8:113::10", "2001:db8:113::20", "2001:db8:51::53")
POD_V4, GATEWAY_V4 = IPv4Address("10.77.0.2"), IPv4Address("10.77.0.1")
GATEWAY_LINK_LOCAL: Final = IPv6Address("fe80::1")
POD_V6, GATEWAY_V6 = IPv6Address("2001:db8:77::2"), IPv6Address("2001:db8:77::1")

# What a workload may not have (docs/netfilter.md); with these gone, UID 0 is held like any other.
FORBIDDEN_CAPABILITIES: Final = (
    "setuid",
    "setgid",
    "net_raw",
    "net_admin",
    "sys_admin",
    "sys_ptrace",
    "bpf",
    "sys_module",
)

_PREFIX: Final = "egress-test"
_COUNTER = itertools.count()


def need_root_and(*tools: str) -> None:
    """Skip the test where namespaces can't be made; with ``CI=true`` fail it instead."""
    missing = [tool for tool in ("ip", "setpriv", *tools) if shutil.which(tool) is None]
    if os.geteuid() != 0:
        missing.insert(0, "root")
    if missing:
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(f"needs {', '.join(missing)}")


class Process:
    """A running program whose first line of output says that it's ready."""

    def __init__(self, popen: subprocess.Popen[str]) -> None:
        self.popen = popen

    @property
    def stdout(self) -> IO[str]:
        assert self.popen.stdout is not None
        return self.popen.stdout

    def line(self) -> str:
        """The next line, without its end; empty once the program has ended."""
        return self.stdout.readline().rstrip("\n")

    def say(self, line: str) -> None:
        assert self.popen.stdin is not None
        self.popen.stdin.write(line + "\n")
        self.popen.stdin.flush()

    def kill(self) -> None:
        if self.popen.poll() is None:
            self.popen.kill()
        self.popen.wait()
        for stream in (self.popen.stdin, self.popen.stdout):
            if stream is not None:
                stream.close()


class Namespace:
    """One network namespace. What it started dies with it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._stack = ExitStack()
        _ip("netns", "add", name)
        self._stack.callback(_remove, name)
        self.ip("link", "set", "lo", "up")
        # Duplicate address detection would hold addresses back for a second.
        self.sysctl(**{"net.ipv6.conf.all.accept_dad": "0", "net.ipv6.conf.default.accept_dad": "0"})

    def close(self) -> None:
        self._stack.close()

    def ip(self, *arguments: str) -> str:
        return _ip("-n", self.name, *arguments)

    def sysctl(self, **values: str) -> None:
        self.run(["sysctl", "-qw", *(f"{key}={value}" for key, value in values.items())], check=True)

    def resolv_conf(self, text: str) -> None:
        """Text of ``/etc/resolv.conf``, for everything that is started from now on."""
        self._etc("resolv.conf", text)

    def hosts(self, text: str) -> None:
        self._etc("hosts", text)

    def _etc(self, file: str, text: str) -> None:
        directory = Path("/etc/netns", self.name)
        directory.mkdir(parents=True, exist_ok=True)
        (directory / file).write_text(text)

    def command(self, command: Sequence[str], *, uid: int | None = None, drop: Sequence[str] = ()) -> list[str]:
        """
        The command line that runs *command* in here.

        Args:
            uid: None keeps root with all its capabilities. 0 is root as a container has it, others have none; both
                without a way to gain privileges. All may read files, since the interpreter may lie in a private home.
            drop: Capabilities to take away from root.
        """
        inside = ["ip", "netns", "exec", self.name]
        if uid is None and not drop:
            return [*inside, *command]
        bounding = ",".join(f"-{capability}" for capability in drop)
        arguments = ["--no-new-privs", *([f"--bounding-set={bounding}"] if drop else [])]
        if uid:
            arguments += [f"--reuid={uid}", f"--regid={uid}", "--clear-groups"]
            arguments += ["--inh-caps", "-all,+dac_read_search", "--ambient-caps", "-all,+dac_read_search"]
        return [*inside, "setpriv", *arguments, "--", *command]

    def run(
        self,
        command: Sequence[str],
        *,
        uid: int | None = None,
        drop: Sequence[str] = (),
        input: str | None = None,
        env: Mapping[str, str] | None = None,
        timeout: float = 20,
        check: bool = False,
    ) -> subprocess.CompletedProcess[str]:
        result = subprocess.run(
            self.command(command, uid=uid, drop=drop),
            input=input,
            stdin=subprocess.DEVNULL if input is None else None,
            capture_output=True,
            text=True,
            timeout=timeout,
            env=_environment(env),
            check=False,
        )
        if check and result.returncode:
            raise AssertionError(f"{' '.join(command)}: exit {result.returncode}\n{result.stdout}{result.stderr}")
        return result

    def popen(
        self,
        command: Sequence[str],
        *,
        uid: int | None = None,
        drop: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
    ) -> Process:
        """Start a program; its standard error is the test's."""
        process = Process(
            subprocess.Popen(
                self.command(command, uid=uid, drop=drop),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env=_environment(env),
            )
        )
        self._stack.callback(process.kill)
        return process

    def python(
        self, code: str, *arguments: str, uid: int | None = None, drop: Sequence[str] = (), timeout: float = 20
    ) -> subprocess.CompletedProcess[str]:
        return self.run([sys.executable, "-c", code, *arguments], uid=uid, drop=drop, timeout=timeout)

    def serve(self, code: str, *arguments: str, uid: int | None = None, drop: Sequence[str] = ()) -> Process:
        """Start Python *code* and wait for its line ``ready``."""
        process = self.popen([sys.executable, "-uc", code, *arguments], uid=uid, drop=drop)
        if (line := process.line()) != "ready":
            process.kill()
            raise AssertionError(f"the server didn't start: {line!r}")
        return process


class Pod(Namespace):
    """
    The namespace that workload and sidecar share; `internet` is the other one.

    Args:
        ipv4: Whether pod and Internet have IPv4 addresses beside 127.0.0.1.
        ipv6: The same for IPv6 and ::1; without, not even the link has a link-local one.
        default_route: Whether the pod knows a way to the Internet.
    """

    def __init__(self, *, ipv4: bool = True, ipv6: bool = True, default_route: bool = True) -> None:
        _remove_stale()
        stem = f"{_PREFIX}-{os.getpid()}-{next(_COUNTER)}"
        super().__init__(f"{stem}-pod")
        self.ipv4, self.ipv6 = ipv4, ipv6
        try:
            self.internet = Namespace(f"{stem}-net")
            self._stack.callback(self.internet.close)
            self._link(default_route)
        except BaseException:
            self.close()
            raise

    def _link(self, default_route: bool) -> None:
        _ip(
            "link",
            "add",
            "eth0",
            "netns",
            self.name,
            "type",
            "veth",
            "peer",
            "name",
            "eth0",
            "netns",
            self.internet.name,
        )
        if not self.ipv6:
            for side in (self, self.internet):
                side.sysctl(**{"net.ipv6.conf.eth0.disable_ipv6": "1"})
        for side, v4, v6 in ((self, POD_V4, POD_V6), (self.internet, GATEWAY_V4, GATEWAY_V6)):
            if self.ipv4:
                side.ip("address", "add", f"{v4}/24", "dev", "eth0")
            if self.ipv6:
                side.ip("address", "add", f"{v6}/64", "dev", "eth0", "nodad")
            side.ip("link", "set", "eth0", "up")
        if self.ipv6:
            self.internet.ip("address", "add", f"{GATEWAY_LINK_LOCAL}/64", "dev", "eth0", "nodad")
        for address in (*(INTERNET_V4 if self.ipv4 else ()), *(INTERNET_V6 if self.ipv6 else ())):
            self.internet.ip("address", "add", address, "dev", "lo")
        if self.ipv4 and default_route:
            self.ip("-4", "route", "add", "default", "via", str(GATEWAY_V4))
        if self.ipv6 and default_route:
            self.ip("-6", "route", "add", "default", "via", str(GATEWAY_V6))

    @property
    def families(self) -> tuple[int, ...]:
        return tuple(version for version, on in ((4, self.ipv4), (6, self.ipv6)) if on)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


@contextmanager
def pods(make: Callable[[], Pod] = Pod) -> Iterator[Pod]:
    """A pod for a fixture: skips or fails first where none can be made."""
    need_root_and("nft", "sysctl")
    with make() as pod:
        yield pod


def _environment(extra: Mapping[str, str] | None) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if not key.lower().endswith("_proxy")}
    return {**kept, "PYTHONPATH": str(ROOT), **(extra or {})}


def _ip(*arguments: str) -> str:
    result = subprocess.run(["ip", *arguments], capture_output=True, text=True, timeout=60, check=False)
    if result.returncode:
        raise AssertionError(f"ip {' '.join(arguments)}: {result.stderr.strip()}")
    return result.stdout


def _remove(name: str) -> None:
    subprocess.run(["ip", "netns", "delete", name], capture_output=True, timeout=60, check=False)
    shutil.rmtree(Path("/etc/netns", name), ignore_errors=True)


def _remove_stale() -> None:
    """Remove what runs of these tests left that were killed: the name holds their process id."""
    for directory in (Path("/run/netns"), Path("/etc/netns")):
        for path in directory.glob(f"{_PREFIX}-*"):
            owner = path.name.removeprefix(f"{_PREFIX}-").split("-")[0]
            if owner.isdigit() and not Path("/proc", owner).exists():
                _remove(path.name)
