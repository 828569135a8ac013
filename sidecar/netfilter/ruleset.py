"""
The fence as nftables text: what the workload's packets meet on their way out.

Three things are judged by, and none is trusted alone: the packet's owner (`meta skuid`, which matches no packet that
the kernel itself sends, nor what a socket sends after it was closed), the direction that connection tracking has
seen, and whether *our* redirect has been applied. "Established" alone never admits anything, so no entry that the
workload keeps alive, from before the rules or from a spoofed packet, lets it out.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Network
from typing import Final

from sidecar.addresses import SYNTHETIC_V4, SYNTHETIC_V6, IPNetwork
from sidecar.errors import SidecarError

TABLE: Final = "egress_sidecar"
SIDECAR_UID: Final = 14137
TRANSPARENT_PORT: Final = 14100
DNS_PORT: Final = 14153
CONTROL_PORTS: Final = (14102,)

# Marks the sidecar's own connections in connection tracking: what its socket sends after close() has no owner.
_OWN_MARK: Final = 0x3739
_MAX_UID: Final = 2**32 - 2  # the last one means "no such user" to the kernel


class RulesetError(SidecarError):
    """A number or a network that the fence can't be built with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ruleset:
    """
    The parameters of the fence.

    Args:
        sidecar_uid: The one user whose packets pass. As the pod's user namespace numbers it.
        transparent_port: Where the sidecar listens for redirected TCP, on 127.0.0.1 and ::1.
        dns_port: Where its resolver listens, UDP and TCP, on 127.0.0.1 and ::1.
        control_ports: Loopback ports that the workload can't connect to. The two above are none of its business
            either, except through the redirect.
        exclude_cidrs: Networks that the operator exempts, whatever the protocol. Port 53 isn't exempt with them: a
            cluster's resolver that answers the workload directly carries anything to anybody. Nor are synthetic
            addresses inside them, since those are names.
        exclude_ports: Destination ports that the operator exempts, UDP and TCP, 53 too.

    Raises:
        RulesetError: A port or UID out of range, UID 0, the same port twice, an exemption of everything or of nothing
            but synthetic addresses.
    """

    sidecar_uid: int = SIDECAR_UID
    transparent_port: int = TRANSPARENT_PORT
    dns_port: int = DNS_PORT
    control_ports: tuple[int, ...] = CONTROL_PORTS
    exclude_cidrs: tuple[IPNetwork, ...] = ()
    exclude_ports: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not 0 < self.sidecar_uid <= _MAX_UID:
            raise RulesetError(
                f"the sidecar's UID can't be {self.sidecar_uid}: "
                f"every process of that user passes the fence; write one of its own, such as {SIDECAR_UID}"
            )
        own = (self.transparent_port, self.dns_port, *self.control_ports)
        for port in (*own, *self.exclude_ports):
            if not 0 < port < 65536:
                raise RulesetError(f"{port} is not a port; write one from 1 to 65535")
        if len(set(own)) != len(own):
            raise RulesetError(f"the sidecar's ports {', '.join(map(str, own))} must differ; give each its own")
        for network in self.exclude_cidrs:
            if network.prefixlen == 0:
                raise RulesetError(f"{network} exempts everything; leave the fence out, or name the networks")
            if _within_synthetic(network):
                raise RulesetError(
                    f"{network} holds only synthetic addresses of the sidecar, which stand for names and lead nowhere; "
                    f"exempt networks beside {SYNTHETIC_V4} and {SYNTHETIC_V6}"
                )

    def text(self) -> str:
        """
        Input of ``nft -f -``: one transaction, so a pod is never half redirected.

        The table is added, deleted and made anew, so that applying it twice is as good as once, whichever rules
        were there (``destroy table`` needs nft 1.0.7).
        """
        return f"add table inet {TABLE}\ndelete table inet {TABLE}\n{self.table(TABLE)}"

    def table(self, name: str, *, dormant: bool = False) -> str:
        """The table alone. A *dormant* one hooks nothing: it is how nft is asked to spell our rules."""
        lines = [f"table inet {name} {{", *(["\tflags dormant"] if dormant else []), *self._chains(), "}"]
        return "\n".join(lines) + "\n"

    def _chains(self) -> Iterator[str]:
        for chain in (self._questions(), _ANSWERS, self._capture(), self._output(), _REFUSE, _POSTROUTING, _FORWARD):
            head, *rules = chain
            yield f"\tchain {head} {{"
            yield from (f"\t\t{rule}" for rule in rules)
            yield "\t}"

    def _questions(self) -> Iterator[str]:
        """
        The sidecar's own questions aren't tracked. With a source port that the workload has just used, they would come
        back as the workload's, with synthetic answers; and the workload's would go out as the sidecar's, and be
        refused.
        """
        yield "questions"
        yield "type filter hook output priority -300; policy accept;"
        yield f'meta skuid {self.sidecar_uid} oif != "lo" udp dport 53 notrack comment "the sidecar\'s own questions"'

    def _capture(self) -> Iterator[str]:
        """First packets only: connection tracking does the same to the rest of a connection."""
        yield "capture"
        # Before the usual -100: what translates addresses first wins (Docker's resolver is a rule of that kind).
        yield "type nat hook output priority -150; policy accept;"
        yield f'meta skuid {self.sidecar_uid} accept comment "the sidecar"'
        yield from self._exempt_ports()
        yield f'udp dport 53 redirect to :{self.dns_port} comment "names, whichever server was asked"'
        yield f"tcp dport 53 redirect to :{self.dns_port}"
        yield f'{_LOOPBACK} accept comment "loopback"'
        yield from self._exempt_networks()
        # No redirect reaches loopback from a socket bound to a link, as these are: they are refused further on.
        yield 'ip6 daddr fe80::/10 accept comment "refused below"'
        yield f'meta l4proto tcp redirect to :{self.transparent_port} comment "all other TCP"'

    def _output(self) -> Iterator[str]:
        yield "output"
        yield "type filter hook output priority 0; policy drop;"
        yield f'meta skuid {self.sidecar_uid} ct mark set {_OWN_MARK:#010x} accept comment "the sidecar"'
        # What tracking can't place may be part of a redirected connection: a reset would end it, a loss is sent again.
        yield "ct state invalid drop"
        # IPV6_FREEBIND lets anyone send from any address: a packet "from" outside to the pod's own address would make
        # the answer to it, which leaves, a reply. Dropped: a refusal would go to that address as well.
        yield f'meta skuid != {self.sidecar_uid} fib saddr type != local drop comment "not the pod\'s address"'
        yield 'exthdr rt exists goto refuse comment "IPv6 source routing hides the destination"'
        yield 'ct direction reply accept comment "answers to who came in"'
        # Not `ct status dnat` alone: others may translate addresses in this namespace, too.
        tcp = f"tcp dport {{ {self.transparent_port}, {self.dns_port} }} accept"
        for loopback in ("ip daddr 127.0.0.1", "ip6 daddr ::1"):
            yield f'ct status dnat {loopback} {tcp} comment "redirected"'
            yield f"ct status dnat {loopback} udp dport {self.dns_port} accept"
        ports = ", ".join(map(str, sorted((self.transparent_port, self.dns_port, *self.control_ports))))
        yield f'oif "lo" meta l4proto {{ tcp, udp }} th dport {{ {ports} }} goto refuse comment "not for the workload"'
        yield f'{_LOOPBACK} accept comment "loopback"'
        yield from self._exempt_ports()
        yield from self._exempt_networks()
        yield f'meta skuid 0-{_MAX_UID} goto refuse comment "all else that a process sends"'
        yield f'ct mark {_OWN_MARK:#010x} accept comment "last words of the sidecar\'s closed sockets"'
        yield from _KERNEL
        yield "goto refuse"

    def _exempt_ports(self) -> Iterator[str]:
        for port in self.exclude_ports:
            yield f'meta l4proto {{ tcp, udp }} th dport {port} accept comment "operator\'s exemption"'

    def _exempt_networks(self) -> Iterator[str]:
        for network in self.exclude_cidrs:
            family, synthetic = ("ip", SYNTHETIC_V4) if network.version == 4 else ("ip6", SYNTHETIC_V6)
            names = f" {family} daddr != {synthetic}" if network.overlaps(synthetic) else ""
            yield f'{family} daddr {network}{names} accept comment "operator\'s exemption"'


def _within_synthetic(network: IPNetwork) -> bool:
    if isinstance(network, IPv4Network):
        return network.subnet_of(SYNTHETIC_V4)
    return network.subnet_of(SYNTHETIC_V6)


# By interface and by address: a socket bound to a link sends even 127.0.0.1 out of it, where a node with
# route_localnet takes it for its own loopback (CVE-2020-8558).
_LOOPBACK: Final = 'oif "lo" fib daddr type local'

# The kernel's errors about what came in are answers, and about the sidecar's own connections carry their mark.
_KERNEL: Final = (
    # Without neighbour discovery nothing comes in; without listener reports snooping switches don't forward it.
    'icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert, nd-router-solicit } accept comment "the kernel\'s own"',
    "icmpv6 type { mld-listener-report, mld-listener-done, mld2-listener-report } accept",
)

_ANSWERS: Final = (
    "answers",
    "type filter hook prerouting priority -300; policy accept;",
    'iif != "lo" udp sport 53 notrack comment "to the sidecar\'s questions"',
)

_REFUSE: Final = (
    "refuse",
    "meta l4proto tcp reject with tcp reset",
    "meta l4proto udp reject with icmpx type port-unreachable",
    "reject with icmpx type admin-prohibited",
)

_POSTROUTING: Final = (
    "last",
    "type filter hook postrouting priority 0; policy accept;",
    # The redirect doesn't change the link that a socket was bound to, so that 127.0.0.1 would leave by it.
    'oif != "lo" ct direction original ct status dnat ip daddr 127.0.0.0/8 drop comment "loopback never leaves"',
    'oif != "lo" ct direction original ct status dnat ip6 daddr ::1 drop',
)

_FORWARD: Final = (
    "forward",
    "type filter hook forward priority 0; policy drop;",
    'reject with icmpx type admin-prohibited comment "the pod is no router"',
)


ROUTE_PROTOCOL: Final = "141"  # marks our routes, so that removing them touches no others


def routes(*, ipv4: bool, ipv6: bool) -> tuple[tuple[str, ...], ...]:
    """
    Arguments of ``ip`` that give the synthetic addresses a route, for the families that are named.

    Without one, connect() fails before any rule sees the packet. They lead to ``lo`` as *unicast*, not *local*,
    routes: the rules don't take them for loopback, and the redirect changes the address. So both families work in
    every pod that has 127.0.0.1 and ::1, also in one whose link has a single family, or no default route. IPv4
    wouldn't find a source address of its own where the link has none.
    """
    route = ("dev", "lo", "proto", ROUTE_PROTOCOL)
    found: list[tuple[str, ...]] = []
    if ipv4:
        found.append(("-4", "route", "replace", str(SYNTHETIC_V4), *route, "src", "127.0.0.1"))
    if ipv6:
        found.append(("-6", "route", "replace", str(SYNTHETIC_V6), *route))
    return tuple(found)
