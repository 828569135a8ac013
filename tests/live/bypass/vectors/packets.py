"""Other protocols than TCP and UDP, and what a socket needs a privilege for."""

import socket

from tests.live.bypass import places
from tests.live.bypass.vector import REFUSED, WITHOUT_ADMIN, WITHOUT_RAW, Vector
from tests.live.pod import POD_V4

_ROUTING, _DESTINATION_OPTIONS, _HOP_BY_HOP = 57, 59, 54  # linux/in6.h
_SYN = "9c4001bb" + "00" * 8 + "5002ffff" + "00" * 4


def _raw(id: str, address: str, protocol: int, head: str = "") -> Vector:
    return Vector(
        id=id,
        probe="datagrams.raw",
        arguments=(address, protocol, head),
        expected=REFUSED,
        precondition=WITHOUT_RAW,
        shown=True,
    )


def _option(id: str, precondition: str, name: int, value: int) -> Vector:
    return Vector(
        id=id,
        probe="datagrams.option",
        arguments=(places.V4, 443, socket.SOL_SOCKET, name, value),
        expected=REFUSED,
        precondition=precondition,
        shown=True,
    )


VECTORS = (
    Vector(id="ping", probe="datagrams.ping", arguments=(places.V4,), expected=REFUSED),
    Vector(id="ping by IPv6", probe="datagrams.ping", arguments=(places.V6,), expected=REFUSED),
    _raw("ICMP echo by hand", places.V4, 1, "0800000000010001"),
    _raw("an ICMP error by hand", places.V4, 1, "0301000000000000"),
    _raw("ICMPv6 echo by hand", places.V6, 58, "8000000000010001"),
    _raw("a neighbour advertisement with data, by hand", places.V6, 58, "8800000000000000"),
    _raw("IP in IP", places.V4, 4, "4500"),
    _raw("IPv6 in IPv4", places.V4, 41, "6000"),
    _raw("GRE", places.V4, 47, "00000800"),
    _raw("GRE by IPv6", places.V6, 47, "00000800"),
    _raw("ESP", places.V4, 50, "0000000100000001"),
    _raw("SCTP", places.V4, 132, "9c4001bb0000000000000000"),
    _raw("SCTP by IPv6", places.V6, 132, "9c4001bb0000000000000000"),
    _raw("DCCP", places.V4, 33, "9c4001bb0400000000000000"),
    _raw("a protocol without a name (253)", places.V4, 253),
    _raw("a SYN with data, by hand", places.V4, 6, _SYN),
    _raw("UDP by hand", places.V4, 17, "270f01bb00220000"),
    Vector(
        id="an Ethernet frame by hand",
        probe="datagrams.frame",
        arguments=(str(POD_V4), places.V4),
        expected=REFUSED,
        precondition=WITHOUT_RAW,
        shown=True,
    ),
    Vector(
        id="an IPv6 routing header",
        probe="datagrams.extended",
        arguments=(places.V6, 443, _ROUTING, "0004040101000000" + "20010db8011300000000000000000020" * 2),
        expected=REFUSED,
    ),
    Vector(
        id="loose source routing (an IPv4 option)",
        probe="datagrams.source_routed",
        arguments=(places.V4, 443, places.RESOLVER_V4),
        expected=REFUSED,
        precondition=WITHOUT_RAW,
        shown=True,
    ),
    Vector(
        id="IPv6 hop-by-hop options",
        probe="datagrams.extended",
        arguments=(places.V6, 443, _HOP_BY_HOP, "0000010400000000"),
        expected=REFUSED,
        precondition=WITHOUT_RAW,
        shown=True,
    ),
    Vector(
        id="IPv6 destination options",
        probe="datagrams.extended",
        arguments=(places.V6, 443, _DESTINATION_OPTIONS, "0000010400000000"),
        expected=REFUSED,
        precondition=WITHOUT_RAW,
        shown=True,
    ),
    _option("SO_MARK", WITHOUT_ADMIN, 36, 0x3739),
    _option("SO_PRIORITY of the kernel's control traffic", WITHOUT_ADMIN, 12, 7),
    Vector(
        id="from another address (IP_TRANSPARENT)",
        probe="datagrams.from_address",
        arguments=(places.V4, 443, places.CGNAT, 7778, "transparent"),
        expected=REFUSED,
        precondition=WITHOUT_ADMIN,
        shown=True,
    ),
    Vector(
        id="from another address (IPV6_TRANSPARENT)",
        probe="datagrams.from_address",
        arguments=(places.V6, 443, places.OTHER_V6, 7778, "transparent"),
        expected=REFUSED,
        precondition=WITHOUT_ADMIN,
        shown=True,
    ),
)
