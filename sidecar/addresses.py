"""
What an IP address is, and whether a connection to it may be dialled.

A name that policy allows says nothing of where it resolves to: whoever owns the name chooses the address. So every
address is classified before it is dialled, and what isn't global is refused unless the operator excepts it.

Sources: the IANA IPv4 and IPv6 Special-Purpose Address Registries (RFC 6890, as updated), the IANA IPv6 address space
registry, and the cloud providers' documentation of their metadata services. Where the registries call an anycast
service address global (192.0.0.9, 2001:1::1, …), it is reserved here: what answers is the nearest network.
"""

from collections.abc import Container, Sequence
from enum import StrEnum
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final

from sidecar.hosts import IPAddress

type IPNetwork = IPv4Network | IPv6Network

# Addresses that the sidecar's resolver hands out for names. Both are never routed on the Internet: the first is for
# benchmarks (RFC 2544), the second is a unique local prefix (RFC 4193) whose 40 random bits were drawn once.
SYNTHETIC_V4: Final = IPv4Network("198.18.0.0/15")
SYNTHETIC_V6: Final = IPv6Network("fdd4:b501:b37d::/64")


class AddressKind(StrEnum):
    """What an address is; everything but `GLOBAL` is refused unless excepted."""

    GLOBAL = "global"
    PRIVATE = "private"
    LOOPBACK = "loopback"
    LINK_LOCAL = "link_local"
    METADATA = "metadata"  # a cloud's metadata or credential service
    CGNAT = "cgnat"
    MULTICAST = "multicast"
    UNSPECIFIED = "unspecified"
    BROADCAST = "broadcast"
    DOCUMENTATION = "documentation"
    BENCHMARKING = "benchmarking"
    SYNTHETIC = "synthetic"  # stands for a name; no host has it
    EMBEDDED_IPV4 = "embedded_ipv4"  # a global IPv4 address in an IPv6 form that no upstream needs
    RESERVED = "reserved"
    OWN = "own"  # the pod's own; `guard` alone says this


_METADATA: Final = frozenset(
    map(
        ip_address,
        (
            "169.254.169.254",  # AWS, Google Cloud, Azure, Oracle, DigitalOcean, OpenStack, …
            "fd00:ec2::254",  # AWS
            "169.254.170.2",  # AWS ECS: credentials of the task
            "169.254.170.23",  # AWS EKS: pod identity
            "fd00:ec2::23",
            "169.254.169.253",  # AWS: resolver of the VPC, which forwards anything
            "fd00:ec2::253",
            "169.254.169.123",  # AWS: time
            "fd00:ec2::123",
            "fd20:ce::254",  # Google Cloud
            "168.63.129.16",  # Azure: wire server, in a global range
            "192.0.0.192",  # Oracle Cloud, classic
            "fd00:c1::a9fe:a9fe",  # Oracle Cloud
            "100.100.100.200",  # Alibaba Cloud
            "100.96.0.96",  # Volcano Engine
            "169.254.0.23",  # Tencent Cloud
            "169.254.42.42",  # Scaleway
            "fd00:42::42",
            "fe80::a9fe:a9fe",  # OpenStack
        ),
    )
)

_KINDS: Final = {
    "0.0.0.0/8": AddressKind.UNSPECIFIED,  # RFC 1122, section 3.2.1.3; Linux takes 0.0.0.0 for loopback
    "10.0.0.0/8": AddressKind.PRIVATE,  # RFC 1918
    "100.64.0.0/10": AddressKind.CGNAT,  # RFC 6598
    "127.0.0.0/8": AddressKind.LOOPBACK,  # RFC 1122, section 3.2.1.3
    "169.254.0.0/16": AddressKind.LINK_LOCAL,  # RFC 3927
    "172.16.0.0/12": AddressKind.PRIVATE,  # RFC 1918
    "192.0.0.0/24": AddressKind.RESERVED,  # RFC 6890
    "192.0.2.0/24": AddressKind.DOCUMENTATION,  # RFC 5737
    "192.88.99.0/24": AddressKind.RESERVED,  # RFC 7526: was the anycast 6to4 relay
    "192.168.0.0/16": AddressKind.PRIVATE,  # RFC 1918
    str(SYNTHETIC_V4): AddressKind.SYNTHETIC,
    "198.51.100.0/24": AddressKind.DOCUMENTATION,  # RFC 5737
    "203.0.113.0/24": AddressKind.DOCUMENTATION,  # RFC 5737
    "224.0.0.0/4": AddressKind.MULTICAST,  # RFC 5771
    "240.0.0.0/4": AddressKind.RESERVED,  # RFC 1112, section 4
    "255.255.255.255/32": AddressKind.BROADCAST,  # RFC 919, section 7
    "::/0": AddressKind.RESERVED,  # all that isn't assigned below
    "::/128": AddressKind.UNSPECIFIED,  # RFC 4291, section 2.5.2
    "::1/128": AddressKind.LOOPBACK,  # RFC 4291, section 2.5.3
    "2000::/3": AddressKind.GLOBAL,  # RFC 4291, section 2.4
    "2001::/23": AddressKind.RESERVED,  # RFC 2928
    "2001:2::/48": AddressKind.BENCHMARKING,  # RFC 5180
    "2001:db8::/32": AddressKind.DOCUMENTATION,  # RFC 3849
    "3ffe::/16": AddressKind.RESERVED,  # RFC 3701: was the 6bone
    "3fff::/20": AddressKind.DOCUMENTATION,  # RFC 9637
    "fc00::/7": AddressKind.PRIVATE,  # RFC 4193
    str(SYNTHETIC_V6): AddressKind.SYNTHETIC,
    "fe80::/10": AddressKind.LINK_LOCAL,  # RFC 4291, section 2.5.6
    "fec0::/10": AddressKind.PRIVATE,  # RFC 3879: was site-local
    "ff00::/8": AddressKind.MULTICAST,  # RFC 4291, section 2.7
}
# version -> (bits to shift away, network's leading bits, kind), longest prefix first: the first match counts
_TABLE: Final = {
    version: [
        (net.max_prefixlen - net.prefixlen, int(net.network_address) >> (net.max_prefixlen - net.prefixlen), kind)
        for net, kind in sorted(
            ((ip_network(text), kind) for text, kind in _KINDS.items()), key=lambda row: -row[0].prefixlen
        )
        if net.version == version
    ]
    for version in (4, 6)
}

_NAT64: Final = IPv6Network("64:ff9b::/96")
# Forms that end in the IPv4 address that they stand for.
_ENDS_IN_IPV4: Final = tuple(
    map(
        IPv6Network,
        (
            "::ffff:0:0/96",  # mapped: RFC 4291, section 2.5.5.2
            "::/96",  # compatible: RFC 4291, section 2.5.5.1
            "::ffff:0:0:0/96",  # translated: RFC 2765, section 2.1
            "64:ff9b:1::/48",  # NAT64 for local use: RFC 8215
        ),
    )
)
# An allowed network that is wider than the address was hardly written with these in mind.
_ONLY_BY_NAME: Final = frozenset({AddressKind.METADATA, AddressKind.OWN, AddressKind.UNSPECIFIED})


@lru_cache(maxsize=8192)
def classify(address: IPAddress) -> AddressKind:
    """
    Say what an address is.

    IPv4 inside IPv6 counts as what the IPv4 address is, in every notation: mapped, compatible, translated, NAT64
    (RFC 6052, RFC 8215), 6to4 (RFC 3056), Teredo (RFC 4380, server and client), ISATAP (RFC 5214). Where the IPv4
    address is global, the whole is

    - `GLOBAL` behind the well-known NAT64 prefix, as every IPv4-only upstream is reached so from an IPv6-only pod,
      and for ISATAP inside a global prefix, since nothing tells it from an ordinary address;
    - `EMBEDDED_IPV4` otherwise: no upstream needs it, and an address rule for the IPv4 address wouldn't see it.
    """
    if address in _METADATA:
        return AddressKind.METADATA
    kind = _listed(address)
    if isinstance(address, IPv4Address) or kind in (AddressKind.LOOPBACK, AddressKind.UNSPECIFIED):
        return kind
    embedded = _embedded(address)
    if not embedded:
        return kind
    for inner in embedded:
        if (inner_kind := classify(inner)) is not AddressKind.GLOBAL:
            return inner_kind
    if address in _NAT64:
        return AddressKind.GLOBAL
    return kind if _is_isatap(address) else AddressKind.EMBEDDED_IPV4


def _listed(address: IPAddress) -> AddressKind:
    bits = int(address)
    for shift, prefix, kind in _TABLE[address.version]:
        if bits >> shift == prefix:
            return kind
    return AddressKind.GLOBAL


def _embedded(address: IPv6Address) -> tuple[IPv4Address, ...]:
    """Every IPv4 address that the IPv6 address stands for; none for an ordinary one."""
    if address in _NAT64 or any(address in network for network in _ENDS_IN_IPV4) or _is_isatap(address):
        return (IPv4Address(int(address) & 0xFFFFFFFF),)
    if address.sixtofour is not None:
        return (address.sixtofour,)
    return address.teredo or ()


def _is_isatap(address: IPv6Address) -> bool:
    """Whether the interface identifier is ``[02]00:5efe`` and an IPv4 address (RFC 5214, section 6.1)."""
    return (int(address) >> 32) & 0xFDFFFFFF == 0x00005EFE


def guard(
    address: IPAddress, allowed: Sequence[IPNetwork], own: Container[IPAddress] = frozenset()
) -> AddressKind | None:
    """
    Say why an address may not be dialled.

    Args:
        address: One of a name's addresses, or the destination as it was given.
        allowed: The operator's exceptions. They hold for the address as it is written: an IPv4 network excepts no
            IPv6 address that embeds one of its own. A metadata service, the pod's own address and the unspecified
            address need an exception of their full length: ``fc00::/7`` doesn't open ``fd00:ec2::254``.
        own: The pod's own addresses: what listens there isn't outside.

    Returns:
        None if the address may be dialled, else the kind that refuses it.
    """
    kind = AddressKind.OWN if address in own else classify(address)
    if kind is AddressKind.GLOBAL:
        return None
    for network in allowed:
        if address in network and (kind not in _ONLY_BY_NAME or network.prefixlen == network.max_prefixlen):
            return None
    return kind
