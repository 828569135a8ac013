"""One of the two pods of the matrix: its Internet, its workload's processes, and what has left it."""

import json
import os
import secrets
import shutil
import sys
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, Final, Literal

from tests.live.bypass import places
from tests.live.bypass.internet import CATCH_ALL
from tests.live.pod import FORBIDDEN_CAPABILITIES, SIDECAR_UID, WORKLOAD_UID, Pod, Process

type Who = Literal["root", "user", "privileged", "sidecar"]
WORKLOADS: Final[tuple[Who, ...]] = ("root", "user")  # as a container has them

_UPSTREAM: Final = frozenset({(6, places.ALLOWED_V4), (6, places.ALLOWED_V6)})
_RESOLVERS: Final = frozenset({(17, places.RESOLVER_V4), (17, places.RESOLVER_V6)})
_REDIRECT: Final = f"""
table inet catch {{
  chain prerouting {{
    type nat hook prerouting priority -100;
    tcp dport != 53 redirect to :{CATCH_ALL}
  }}
}}
"""


@dataclass(frozen=True, slots=True)
class Left:
    """What arrived at the Internet: tokens, and packets to where nothing of the sidecar's goes."""

    tokens: frozenset[str]
    astray: tuple[str, ...]


class Side:
    """A pod, and its Internet, where every attempt arrives if nothing holds it."""

    def __init__(self, pod: Pod, folder: Path) -> None:
        self.pod, self._markers = pod, count(1)
        self.ever = set[str]()  # all tokens that have arrived
        pod.sysctl(**{"net.ipv4.ping_group_range": "0 2147483647", "net.ipv4.tcp_fastopen": "5"})
        pod.resolv_conf(f"nameserver {places.RESOLVER_V4}\noptions timeout:2 attempts:1\n")
        internet = pod.internet
        internet.sysctl(**{"net.ipv4.tcp_fastopen": "515"})
        for address in places.ELSEWHERE:
            internet.ip("address", "add", address, "dev", "lo")
        internet.run(["nft", "-f", "-"], input=_REDIRECT, check=True)
        folder.mkdir(exist_ok=True)
        self.upstream_ca = folder / "upstream-root.pem"
        self._internet = _start(internet.popen([sys.executable, "-m", "tests.live.bypass.internet", str(folder)]))
        agent = [sys.executable, "-m", "tests.live.bypass.agent"]
        self._agents: dict[Who, Process] = {
            "root": pod.popen(agent, uid=0, drop=FORBIDDEN_CAPABILITIES),
            "user": pod.popen(agent, uid=WORKLOAD_UID),
            "privileged": pod.popen(agent),
            "sidecar": pod.popen(agent, uid=SIDECAR_UID),
        }
        for process in self._agents.values():
            _start(process)
        self.places: dict[str, object] = {
            "{program}": str(_shell_of_the_sidecar(folder)),
            "{internet}": f"/run/netns/{internet.name}",
        }
        for who in WORKLOADS:
            for version, address in ((4, places.V4), (6, places.V6)):
                self.ask(who, "streams.keep", f"tcp{version}", "tcp", address, 443)
                self.ask(who, "streams.keep", f"udp{version}", "udp", address, 443)
        self.left()

        self.ever.clear()

    def ask(self, who: Who, probe: str, *arguments: object, token: str = "") -> str:
        """Let a process of *who* make an attempt; its answer."""
        filled = [self.places.get(value, value) if isinstance(value, str) else value for value in arguments]
        self._agents[who].say(json.dumps([probe, [token, *filled]]))
        line = self._agents[who].line()
        assert line, f"{probe} has ended the process of {who}"
        said: str = json.loads(line)
        return said

    def left(self, *, resolver_may_be_asked: bool = False) -> Left:
        """
        What has arrived since the last call, all that left before this one.

        The sidecar's user sends a marker, which passes the fence, and the link keeps the order.
        """
        marker = next(self._markers)
        self.ask("sidecar", "datagrams.udp", places.V4, 7, token=f"marker-{marker}")
        self._internet.say(str(marker))
        seen: dict[str, Any] = json.loads(self._internet.line())
        assert seen["arrived"], "the marker didn't arrive: what else did can't be told"
        usual = _UPSTREAM | (_RESOLVERS if resolver_may_be_asked else frozenset())
        astray = [f"protocol {p} to {to} port {port}" for p, to, port in seen["packets"] if (p, to) not in usual]
        self.ever.update(seen["tokens"])
        return Left(frozenset(seen["tokens"]), tuple(astray))


def new_token() -> str:
    return f"row-{secrets.token_hex(6)}"


def _start(process: Process) -> Process:
    line = process.line()
    assert line == "ready", f"didn't start: {line!r}"
    return process


def _shell_of_the_sidecar(folder: Path) -> Path:
    """A program with the setuid bit that belongs to the sidecar's user, as an image may bring it."""
    program = folder / "shell"
    shutil.copy("/bin/bash", program)
    os.chown(program, SIDECAR_UID, SIDECAR_UID)
    program.chmod(0o4755)
    return program
