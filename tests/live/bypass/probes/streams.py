"""TCP: plain bytes, odd segments, odd options; ``closed`` is an end without an answer."""

import os
import socket
import ssl
from collections.abc import Sequence

from tests.live.wire import Answer, answer

_kept: dict[str, socket.socket] = {}


def family_of(address: str) -> socket.AddressFamily:
    """Of an address, or of a name, for which IPv4 is taken."""
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def connect(address: str, port: int) -> socket.socket:
    """A connection to an address or a name, by IPv4 where the name has that."""
    try:
        found = socket.getaddrinfo(address, port, family_of(address), socket.SOCK_STREAM)
    except socket.gaierror:
        found = socket.getaddrinfo(address, port, socket.AF_INET6, socket.SOCK_STREAM)
    sock = socket.socket(found[0][0], socket.SOCK_STREAM)
    sock.connect(found[0][4])
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def heard(sock: socket.socket) -> str:
    """What the peer says: ``closed``, a refusal with its reason, or the answer of the Internet."""
    try:
        first = sock.recv(1, socket.MSG_PEEK) if not isinstance(sock, ssl.SSLSocket) else b""
        if first and first != b"H":
            return sock.recv(200).decode("latin-1").strip()
        return words(answer(sock))
    except (ConnectionError, ssl.SSLEOFError):
        return "closed"
    except Exception as e:
        if type(e).__name__ in ("RemoteDisconnected", "BadStatusLine", "IncompleteRead"):
            return "closed"
        raise


def words(got: Answer) -> str:
    """Status and reason of a refusal; status and body of the Internet's answer."""
    said = got.reason or got.body.decode("latin-1").strip()
    return str(got.status) if said.startswith("<html") else f"{got.status} {said}".strip()


def raw(token: str, address: str, port: int) -> str:
    """Bytes that are no protocol."""
    with connect(address, port) as sock:
        sock.sendall(f"\x01\x02{token}\r\n".encode())
        return heard(sock)


def impatient(token: str, address: str, port: int) -> str:
    """The same, and doesn't wait for an answer for long."""
    with connect(address, port) as sock:
        sock.settimeout(0.5)
        sock.sendall(f"\x01\x02{token}\r\n".encode())
        return heard(sock)


def silent(_: str, address: str, port: int) -> str:
    """Waits for the server to speak first."""
    with connect(address, port) as sock:
        try:
            return sock.recv(200).decode("latin-1").strip() or "closed"
        except ConnectionError:
            return "closed"


def pieces(token: str, address: str, port: int, *parts: str) -> str:
    """Each part in a segment of its own, with ``{token}`` filled in."""
    with connect(address, port) as sock:
        try:
            for part in parts:
                sock.sendall(part.replace("{token}", token).encode("latin-1"))
        except ConnectionError:
            return "closed"
        return heard(sock)


def sweep(token: str, address: str, ports: Sequence[int]) -> str:
    """The same on many ports; what was said, each answer once."""
    return ", ".join(sorted({_one(token, address, port) for port in ports}))


def _one(token: str, address: str, port: int) -> str:
    try:
        return raw(token, address, port)
    except OSError as e:
        return type(e).__name__


def urgent(token: str, address: str, port: int) -> str:
    """As urgent data, which some middle boxes handle apart."""
    with connect(address, port) as sock:
        sock.send(token.encode(), socket.MSG_OOB)
        sock.sendall(b"\x01")
        return heard(sock)


def half_closed(token: str, address: str, port: int) -> str:
    with connect(address, port) as sock:
        sock.sendall(f"\x01\x02{token}".encode())
        sock.shutdown(socket.SHUT_WR)
        return heard(sock)


def aborted(token: str, address: str, port: int) -> str:
    """Sends, and resets the connection at once, so that nobody is there to be told."""
    with connect(address, port) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        sock.sendall(f"\x01\x02{token}".encode())
    return "sent"


def fast_open(token: str, address: str, port: int) -> str:
    """Data in the first packet (RFC 7413)."""
    with socket.socket(family_of(address), socket.SOCK_STREAM) as sock:
        sock.sendto(f"\x01\x02{token}".encode(), socket.MSG_FASTOPEN, (address, port))
        return heard(sock)


def multipath(token: str, address: str, port: int) -> str:
    with socket.socket(family_of(address), socket.SOCK_STREAM, 262) as sock:  # IPPROTO_MPTCP
        sock.connect((address, port))
        sock.sendall(f"\x01\x02{token}".encode())
        return heard(sock)


def bound(token: str, address: str, port: int) -> str:
    """Bound to the link: no redirect reaches such a socket."""
    with socket.socket(family_of(address), socket.SOCK_STREAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"eth0")
        sock.settimeout(0.7)
        sock.connect((address, port))
        sock.sendall(f"\x01\x02{token}".encode())
        return heard(sock)


def keep(_: str, key: str, kind: str, address: str, port: int) -> str:
    """Opens what a later probe goes on with."""
    sock = socket.socket(family_of(address), socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM)
    sock.connect((address, port))
    sock.send(b"hello")
    if kind == "tcp":
        heard(sock)
    _kept[key] = sock
    return f"kept by {os.getpid()}"


def go_on(token: str, key: str) -> str:
    """Sends on what `keep` has opened."""
    sock = _kept[key]
    sock.settimeout(1)
    sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)  # nobody listens there: the first datagram's refusal
    sock.send(f"{token}\r\n\r\n".encode())
    return heard(sock) if sock.type == socket.SOCK_STREAM else "sent"
