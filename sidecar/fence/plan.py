"""Which canaries a fence check sends: values, made from what the sidecar says of its listeners."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final

from sidecar.hosts import Authority, parse_host
from sidecar.netfilter.ruleset import CONTROL_PORTS

# Addresses that belong to nobody (RFC 5737, section 3; RFC 3849): a canary that does get through disturbs no one.
NOWHERE: Final = ("192.0.2.1", "2001:db8::1")
NO_RESOLVER: Final = ("192.0.2.53", "2001:db8::53")
METADATA: Final = ("169.254.169.254", "fd00:ec2::254")
NEIGHBOUR: Final = "fe80::1"
# A name that nobody can register (RFC 2606, section 2). No policy allows it by name; under `default: allow` it's a
# canary all the same, since the sidecar refuses those before it judges.
NAME: Final = "egress-canary.example"


class Kind(Enum):
    """What is sent, and so what proves that it was held."""

    TCP = "tcp"  # to an address: the sidecar has got the nonce
    NAME = "name"  # the same, to the address of a name
    UDP = "udp"  # the kernel refuses to send it
    ECHO = "echo"  # ICMP echo: the same
    DNS_UDP = "dns_udp"  # the sidecar's resolver answers, whoever was asked
    DNS_TCP = "dns_tcp"
    OWN_TCP = "own_tcp"  # a listener of the sidecar: refused, though it listens
    OWN_UDP = "own_udp"
    WORKS = "works"  # must be reached
    LOOPBACK = "loopback"  # must be reached: a listener of the checker's own


@dataclass(frozen=True, slots=True)
class Listener:
    """One of the sidecar's listeners, as it says itself."""

    kind: str  # explicit, redirect, dns, control, health
    address: str  # host:port


@dataclass(frozen=True, slots=True)
class Canary:
    """One attempt. ``host`` is an address, or a name for the kinds that resolve."""

    id: str
    kind: Kind
    host: str
    port: int
    expected: str
    interface: str | None = None  # for a link-local address

    @property
    def target(self) -> str:
        host = f"[{self.host}%{self.interface}]" if self.interface else str(Authority(parse_host(self.host)))
        return f"{host}:{self.port}" if self.port else host

    @property
    def version(self) -> int | None:
        """4 or 6; None for a name."""
        address = parse_host(self.host).address
        return address.version if address else None

    @property
    def has_nonce(self) -> bool:
        return self.kind in (Kind.TCP, Kind.NAME)


def plan(
    listeners: Sequence[Listener], *, name: str = NAME, allowed: Sequence[Authority] = (), links: Sequence[str] = ()
) -> tuple[Canary, ...]:
    """
    All canaries of one check.

    Args:
        listeners: The sidecar's own, which the workload must not reach directly.
        name: A name that policy denies.
        allowed: What policy allows and must work, each with a port.
        links: Interfaces with an IPv6 link-local address.
    """
    return (
        *_addresses(),
        Canary("denied_name", Kind.NAME, name, 443, "arrives at the sidecar"),
        *_own(listeners),
        *(
            Canary(f"udp_link_local_{link}", Kind.UDP, NEIGHBOUR, 443, "refused by the kernel", link)
            for link in links[:1]
        ),
        Canary("loopback", Kind.LOOPBACK, "127.0.0.1", 0, "works"),
        *(Canary(f"allowed_{to.host}", Kind.WORKS, to.host.name, to.port or 443, "works") for to in allowed),
    )


def _addresses() -> Iterator[Canary]:
    for suffix, nowhere, resolver, metadata in zip(("v4", "v6"), NOWHERE, NO_RESOLVER, METADATA, strict=True):
        for port in (443, 80, 22, 25):
            yield Canary(f"tcp_{port}_{suffix}", Kind.TCP, nowhere, port, "arrives at the sidecar")
        yield Canary(f"metadata_{suffix}", Kind.TCP, metadata, 80, "arrives at the sidecar")
        yield Canary(f"udp_443_{suffix}", Kind.UDP, nowhere, 443, "refused by the kernel")
        yield Canary(f"icmp_echo_{suffix}", Kind.ECHO, nowhere, 0, "refused by the kernel")
        for kind in (Kind.DNS_UDP, Kind.DNS_TCP):
            yield Canary(f"{kind.value}_{suffix}", kind, resolver, 53, "answered by the sidecar's resolver")


def _own(listeners: Sequence[Listener]) -> Iterator[Canary]:
    """The listeners that are not for the workload, and the control port, even where the sidecar has none there."""
    expected = "refused while the sidecar listens"
    seen = {}
    for listener in listeners:
        if listener.kind in ("redirect", "dns", "control"):
            seen[listener.address] = listener.kind
    for port in () if "control" in seen.values() else CONTROL_PORTS:
        seen[f"127.0.0.1:{port}"] = "control"
    for address, kind in seen.items():
        host, number = address.rpartition(":")[0].strip("[]"), int(address.rpartition(":")[2])
        suffix = f"{kind}_{'v6' if ':' in host else 'v4'}"
        yield Canary(f"own_{suffix}", Kind.OWN_TCP, host, number, expected)
        if kind == "dns":
            yield Canary(f"own_{suffix}_udp", Kind.OWN_UDP, host, number, "refused by the kernel")
