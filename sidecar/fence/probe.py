"""Sends canaries, as an ordinary process without capabilities, and tells what became of each."""

import asyncio
import errno
import fcntl
import secrets
import socket
import struct
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from sidecar.fence.canaries import canary_line
from sidecar.fence.plan import Canary, Kind
from sidecar.fence.verdict import Did, Observation
from sidecar.names.records import Question, Type
from sidecar.names.wire import WireError, decode_message, encode_query

SECONDS: Final = 2.0  # for each attempt
# How the sidecar's resolver refuses ANY (RFC 8482, section 4.2). Elsewhere a name that doesn't exist has no records.
_MINIMAL: Final = b"\x07RFC8482\x00"
_SIOCGIFADDR: Final = 0x8915
_IP_RECVERR: Final = 11
_IPV6_RECVERR: Final = 25
_LINK, _HOST = 0x20, 0x10  # scopes in /proc/net/if_inet6


@dataclass(frozen=True, slots=True)
class Surroundings:
    """The addresses of this network namespace, as far as they matter."""

    versions: tuple[int, ...]  # with an address beside loopback and link-local ones
    links: tuple[str, ...]  # interfaces with an IPv6 link-local address


def surroundings() -> Surroundings:
    """Look at the interfaces; needs no privilege."""
    links, versions = [], []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        for _, name in socket.if_nameindex():
            try:
                fcntl.ioctl(probe, _SIOCGIFADDR, struct.pack("256s", name.encode()))
            except OSError:
                continue
            if name != "lo" and 4 not in versions:
                versions.append(4)
    try:
        lines = Path("/proc/net/if_inet6").read_text().splitlines()
    except OSError:
        lines = []
    for line in lines:
        _, _, _, scope, _, name = line.split()
        if int(scope, 16) == _LINK:
            links.append(name)
        elif int(scope, 16) != _HOST and name != "lo" and 6 not in versions:
            versions.append(6)
    return Surroundings(tuple(versions), tuple(links))


async def probe(canary: Canary, nonce: str, name: str) -> Observation:
    """
    Make one attempt, in at most `SECONDS`.

    Args:
        nonce: What a TCP canary says.
        name: What a DNS canary asks for.
    """
    connected = False

    async def attempt() -> Observation:
        nonlocal connected
        address = canary.host
        if canary.kind in (Kind.NAME, Kind.WORKS) and canary.version is None:
            found = await _resolve(canary.host, canary.port)
            if found is None:
                return Observation(Did.UNRESOLVED)
            address = found
        match canary.kind:
            case Kind.UDP | Kind.OWN_UDP:
                return _send(_socket(address, socket.SOCK_DGRAM), _where(canary, address), b"canary")
            case Kind.ECHO:
                return await _echo(address)
            case Kind.DNS_UDP | Kind.DNS_TCP:
                return await _ask(canary, name)
            case Kind.LOOPBACK:
                return await _own_loopback()
        with _socket(address, socket.SOCK_STREAM) as stream:
            await asyncio.get_running_loop().sock_connect(stream, _where(canary, address))
            connected = True
            if canary.has_nonce:
                await _say(stream, canary_line(nonce))
        return Observation(Did.CONNECTED)

    try:
        async with asyncio.timeout(SECONDS):
            return await attempt()
    except TimeoutError:
        return Observation(Did.CONNECTED if connected else Did.TIMEOUT)
    except OSError as e:
        return Observation(Did.FAILED, errno.errorcode.get(e.errno or 0, str(e)))


def _socket(address: str, kind: int, protocol: int = 0) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    return socket.socket(family, kind | socket.SOCK_NONBLOCK, protocol)


def _where(canary: Canary, address: str) -> Any:
    if canary.interface is not None:
        return address, canary.port, 0, socket.if_nametoindex(canary.interface)
    return address, canary.port


async def _say(stream: socket.socket, line: bytes) -> None:
    """Send, and wait until the other side hangs up, as our listener does; how is all the same."""
    loop = asyncio.get_running_loop()
    try:
        await loop.sock_sendall(stream, line)
        while await loop.sock_recv(stream, 4096):
            pass
    except ConnectionError:
        pass


def _send(datagram: socket.socket, where: Any, data: bytes) -> Observation:
    with datagram:
        datagram.connect(where)
        datagram.send(data)
    return Observation(Did.SENT)


async def _echo(address: str) -> Observation:
    """By a ping socket, which needs no capability; where the system allows none, by a raw one."""
    v6 = ":" in address
    for kind in (socket.SOCK_DGRAM, socket.SOCK_RAW):
        try:
            echo = _socket(address, kind, socket.IPPROTO_ICMPV6 if v6 else socket.IPPROTO_ICMP)
        except PermissionError:
            continue
        with echo:
            echo.setsockopt(*((socket.IPPROTO_IPV6, _IPV6_RECVERR, 1) if v6 else (socket.IPPROTO_IP, _IP_RECVERR, 1)))
            echo.connect((address, 0))
            echo.send(bytes([128 if v6 else 8]) + bytes(7))
            # A ping socket of IPv6 says that it has sent what the rules refuse; their ICMP error comes after.
            return Observation(Did.REFUSED_HERE if await _refused_here(echo) else Did.SENT)
    return Observation(Did.NO_SOCKET)


async def _refused_here(echo: socket.socket) -> bool:
    """Does an ICMP error come from an address of this machine (RFC 4443, section 3.1, says who sent it)?"""
    try:
        async with asyncio.timeout(SECONDS / 2):
            await asyncio.get_running_loop().sock_recv(echo, 4096)
    except TimeoutError:
        return False
    except OSError:
        pass
    else:
        return False
    try:
        _, control, _, _ = echo.recvmsg(4096, 512, socket.MSG_ERRQUEUE)
    except OSError:
        return False
    for _, kind, data in control:
        # struct sock_extended_err, 16 bytes, and the sender's struct sockaddr_in6 or sockaddr_in.
        if kind == _IPV6_RECVERR and len(data) >= 40:
            return _is_own(socket.inet_ntop(socket.AF_INET6, data[24:40]))
        if kind == _IP_RECVERR and len(data) >= 24:
            return _is_own(socket.inet_ntop(socket.AF_INET, data[20:24]))
    return False


def _is_own(address: str) -> bool:
    try:
        with _socket(address, socket.SOCK_DGRAM) as probe:
            probe.bind((address, 0))
    except OSError:
        return False
    return True


async def _ask(canary: Canary, name: str) -> Observation:
    loop, id_ = asyncio.get_running_loop(), secrets.randbelow(1 << 16)
    query = encode_query(id_, Question(name, Type.ANY))
    stream = canary.kind is Kind.DNS_TCP
    with _socket(canary.host, socket.SOCK_STREAM if stream else socket.SOCK_DGRAM) as asking:
        await loop.sock_connect(asking, (canary.host, canary.port))
        await loop.sock_sendall(asking, len(query).to_bytes(2) + query if stream else query)
        answer = await loop.sock_recv(asking, 4096)
        while stream and (len(answer) < 2 or len(answer) - 2 < int.from_bytes(answer[:2])):
            if not (more := await loop.sock_recv(asking, 4096)):
                return Observation(Did.ANSWERED_BY_OTHER)
            answer += more
    try:
        message = decode_message(answer[2:] if stream else answer)
    except WireError:
        return Observation(Did.ANSWERED_BY_OTHER)
    ours = any(record.type == Type.HINFO and record.data == _MINIMAL for record in message.answers)
    return Observation(Did.ANSWERED if ours and message.id == id_ else Did.ANSWERED_BY_OTHER)


async def _own_loopback() -> Observation:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(1)
        with _socket("127.0.0.1", socket.SOCK_STREAM) as stream:
            await asyncio.get_running_loop().sock_connect(stream, listener.getsockname())
    return Observation(Did.CONNECTED)


async def _resolve(name: str, port: int) -> str | None:
    """The first address, by the system's resolver, as the workload would ask it."""
    loop = asyncio.get_running_loop()
    found: asyncio.Future[str | None] = loop.create_future()

    def answer(address: str | None) -> None:
        if not found.done():
            found.set_result(address)

    def look_up() -> None:
        try:
            address = str(socket.getaddrinfo(name, port, type=socket.SOCK_STREAM)[0][4][0])
        except OSError:
            address = None
        if not loop.is_closed():
            loop.call_soon_threadsafe(answer, address)

    # Not the loop's executor: a resolver that doesn't answer would hold up the end of this process.
    threading.Thread(target=look_up, daemon=True).start()
    return await found
