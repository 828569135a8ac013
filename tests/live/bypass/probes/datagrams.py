"""UDP and its relatives, raw protocols, and what bends the address of a packet."""

import socket
import struct
from contextlib import suppress

from tests.live.bypass.probes.streams import family_of

_FREEBIND, _IPV6_FREEBIND, _TRANSPARENT = 15, 78, 19  # linux/in.h, linux/in6.h


def udp(token: str, address: str, port: int) -> str:
    with socket.socket(family_of(address), socket.SOCK_DGRAM) as sock:
        sock.sendto(token.encode(), socket.getaddrinfo(address, port, sock.family)[0][4])
        return "sent"


def connected(token: str, address: str, port: int) -> str:
    """Connected, so that a refusal that comes later would be told with the second packet."""
    with socket.socket(family_of(address), socket.SOCK_DGRAM) as sock:
        sock.connect((address, port))
        sock.send(token.encode())
        sock.send(token.encode())
        return "sent"


def fragmented(token: str, address: str, port: int) -> str:
    """Larger than a packet: the second fragment has no ports."""
    with socket.socket(family_of(address), socket.SOCK_DGRAM) as sock:
        sock.sendto(b"\0" * 4000 + token.encode(), (address, port))
        return "sent"


def corked(token: str, address: str, port: int) -> str:
    """Put together from two calls, sent with the second."""
    with socket.socket(family_of(address), socket.SOCK_DGRAM) as sock:
        sock.connect((address, port))
        sock.send(token[:8].encode(), socket.MSG_MORE)
        sock.send(token[8:].encode())
        return "sent"


def broadcast(token: str, address: str, port: int) -> str:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"eth0")
        sock.sendto(token.encode(), (address, port))
        return "sent"


def multicast(token: str, address: str, port: int) -> str:
    with socket.socket(family_of(address), socket.SOCK_DGRAM) as sock:
        if sock.family == socket.AF_INET:
            link = struct.pack("4s4si", b"\0" * 4, b"\0" * 4, socket.if_nametoindex("eth0"))
            sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, link)
        sock.sendto(token.encode(), socket.getaddrinfo(address, port, sock.family)[0][4])
        return "sent"


def bound(token: str, address: str, port: int) -> str:
    with socket.socket(family_of(address), socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"eth0")
        sock.settimeout(0.7)
        sock.sendto(token.encode(), (address, port))
        if port != 53:
            return "sent"
        sock.recv(100)
        return "answered"


def by_interface(token: str, address: str, port: int) -> str:
    """The link chosen by ancillary data."""
    level, kind = (socket.IPPROTO_IPV6, socket.IPV6_PKTINFO) if ":" in address else (socket.IPPROTO_IP, 8)
    index = socket.if_nametoindex("eth0")
    info = struct.pack("=16sI", b"", index) if ":" in address else struct.pack("=i4s4s", index, b"", b"")
    with socket.socket(family_of(address), socket.SOCK_DGRAM) as sock:
        sock.sendmsg([token.encode()], [(level, kind, info)], 0, (address, port))
        return "sent"


def option(token: str, address: str, port: int, level: int, name: int, value: int) -> str:
    """With a socket option that changes how packets are routed or matched."""
    with socket.socket(family_of(address), socket.SOCK_DGRAM) as sock:
        sock.setsockopt(level, name, value)
        sock.sendto(token.encode(), (address, port))
        return "sent"


def from_address(
    token: str, address: str, port: int, source: str, source_port: int, privilege: str = "freebind"
) -> str:
    """From an address that the pod doesn't have."""
    with socket.socket(family_of(address), socket.SOCK_DGRAM) as sock:
        if sock.family == socket.AF_INET:
            sock.setsockopt(socket.IPPROTO_IP, _TRANSPARENT if privilege == "transparent" else _FREEBIND, 1)
        else:
            sock.setsockopt(socket.IPPROTO_IPV6, 75 if privilege == "transparent" else _IPV6_FREEBIND, 1)
        sock.bind((source, source_port))
        sock.sendto(token.encode(), (address, port))
        return "sent"


def reply_to_a_lie(token: str, outside: str, own: str) -> str:
    """A packet "from" outside to the pod itself, then an answer to it: a reply, were connection tracking believed."""
    family = family_of(outside)
    with socket.socket(family, socket.SOCK_DGRAM) as inside, socket.socket(family, socket.SOCK_DGRAM) as liar:
        inside.bind((own, 0))
        v4 = family == socket.AF_INET
        liar.setsockopt(socket.IPPROTO_IP if v4 else socket.IPPROTO_IPV6, _FREEBIND if v4 else _IPV6_FREEBIND, 1)
        liar.bind((outside, 4443))
        with suppress(PermissionError):  # the answer is tried all the same
            liar.sendto(b"knock", inside.getsockname()[:2])
        inside.sendto(token.encode(), (outside, 4443))
        return "sent"


def extended(token: str, address: str, port: int, header: int, content: str) -> str:
    """With an IPv6 extension header, *content* in hexadecimal."""
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.IPPROTO_IPV6, header, bytes.fromhex(content))
        sock.sendto(token.encode(), (address, port))
        return "sent"


def source_routed(token: str, address: str, port: int, through: str) -> str:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_OPTIONS, b"\x83\x07\x04" + socket.inet_aton(through) + b"\x01")
        sock.sendto(token.encode(), (address, port))
        return "sent"


def lite(token: str, address: str, port: int) -> str:
    with socket.socket(family_of(address), socket.SOCK_DGRAM, 136) as sock:
        sock.sendto(token.encode(), (address, port))
        return "sent"


def ping(token: str, address: str) -> str:
    """ICMP echo by a socket that needs no capability."""
    v6 = ":" in address
    with socket.socket(family_of(address), socket.SOCK_DGRAM, 58 if v6 else 1) as sock:
        sock.connect((address, 0))
        sock.send(bytes([128 if v6 else 8, 0, 0, 0, 0, 1, 0, 1]) + token.encode())
        sock.recv(200)
        return "answered"


def raw(token: str, address: str, protocol: int, head: str = "") -> str:
    """A packet of any protocol by hand, *head* in hexadecimal."""
    with socket.socket(family_of(address), socket.SOCK_RAW, protocol) as sock:
        sock.sendto(bytes.fromhex(head) + token.encode(), (address, 0))
        return "sent"


def frame(token: str, source: str, address: str) -> str:
    """An Ethernet frame by hand, to whoever is on the link: no rule of the IP layer sees it."""
    with socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM) as sock:
        data = struct.pack("!HHHH", 9, 9, 8 + len(token), 0) + token.encode()
        head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(data), 0, 0, 64, 17, 0)
        packet = head + socket.inet_aton(source) + socket.inet_aton(address) + data
        sock.sendto(packet, ("eth0", 0x0800, 0, 0, b"\xff" * 6))
        return "sent"
