"""A node, in whose network containers run, and the Internet behind it, where everything answers on every port."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any, Final

from tests.live.bypass import places
from tests.live.bypass.internet import CATCH_ALL
from tests.live.pod import Pod, pods

_REDIRECT: Final = f"""
table inet catch {{
  chain prerouting {{ type nat hook prerouting priority -100; tcp dport != 53 redirect to :{CATCH_ALL}; }}
}}
"""
_MARK: Final = """
import socket, sys
socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(sys.argv[1].encode(), (sys.argv[2], 7))
"""
# The sidecar dials what policy allows, and asks the resolver that the pod was given.
_EXPECTED: Final = frozenset(
    {(6, places.ALLOWED_V4), (6, places.ALLOWED_V6), (17, places.RESOLVER_V4), (17, places.RESOLVER_V6)}
)

# Every name of the tests leads into ranges for documentation, which are refused unless the policy says so.
ADDRESSES: Final = 'network: {allow_addresses: ["203.0.113.0/24", "2001:db8::/32"]}\n'


class Node:
    """A network namespace with bridge and NAT for containers; its one way out is the link to the Internet."""

    def __init__(self, pod: Pod, folder: Path) -> None:
        self._pod, self._markers = pod, count(1)
        self.namespace = pod.name
        for address in places.ELSEWHERE:
            pod.internet.ip("address", "add", address, "dev", "lo")
        pod.internet.run(["nft", "-f", "-"], input=_REDIRECT, check=True)
        pod.sysctl(**{"net.ipv4.ip_forward": "1", "net.ipv6.conf.all.forwarding": "1"})
        self.root = folder / "upstream-root.pem"
        command = [sys.executable, "-m", "tests.live.bypass.internet", str(folder)]
        self._internet = pod.internet.popen(command)
        assert self._internet.line() == "ready"

    def astray(self) -> list[str]:
        """Packets that have arrived since the last call, other than the sidecar's own."""
        marker = next(self._markers)
        self._pod.python(_MARK, f"marker-{marker}", places.V4)
        self._internet.say(str(marker))
        seen: dict[str, Any] = json.loads(self._internet.line())
        assert seen["arrived"], "the marker didn't arrive: what else did can't be told"
        return [f"protocol {p} to {to}:{port}" for p, to, port in seen["packets"] if (p, to) not in _EXPECTED]


@contextmanager
def nodes(folder: Path) -> Iterator[Node]:
    """A node for a fixture; skips or fails first where none can be made."""
    with pods() as pod:
        yield Node(pod, folder)
