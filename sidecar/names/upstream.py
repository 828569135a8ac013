"""Asking an upstream resolver, over UDP and, where the answer was cut off, over TCP. An edge: this one does I/O."""

import asyncio
import secrets
import socket
import struct
from collections.abc import Sequence
from dataclasses import dataclass

from sidecar.errors import SidecarError
from sidecar.hosts import IPAddress
from sidecar.names.records import Question, Rcode
from sidecar.names.wire import Message, WireError, decode_message, encode_query

_LENGTH = struct.Struct("!H")


class UpstreamSilent(SidecarError):
    """No resolver gave an answer that can be used."""


@dataclass(frozen=True, slots=True)
class Server:
    """One upstream resolver."""

    address: IPAddress
    port: int = 53


class Upstream:
    """
    Asks resolvers in their order until one answers.

    Each query has a random id and a socket of its own, connected, so a random port: an answer counts only if it comes
    from the resolver asked, carries the id and repeats the question (RFC 5452, section 9.1).
    """

    def __init__(self, servers: Sequence[Server], *, timeout_s: float = 3, at_once: int = 64) -> None:
        """
        Args:
            servers: In the order in which they are asked.
            timeout_s: Seconds that each has.
            at_once: Queries under way at the same time; more of them wait.
        """
        self._servers = tuple(servers)
        self._timeout_s = timeout_s
        self._slots = asyncio.Semaphore(at_once)

    async def ask(self, question: Question) -> Message:
        """
        Ask for *question*.

        Returns:
            The first answer with NOERROR or NXDOMAIN, else the last one of all.

        Raises:
            UpstreamSilent: There is no resolver, or none of them answered.
        """
        failed: Message | None = None
        problems = []
        async with self._slots:
            for server in self._servers:
                try:
                    async with asyncio.timeout(self._timeout_s):
                        answer = await _ask(server, question)
                except (OSError, WireError, EOFError) as e:  # TimeoutError is an OSError
                    problems.append(f"{server.address}: {e or type(e).__name__}")
                    continue
                if answer.rcode in (Rcode.NOERROR, Rcode.NXDOMAIN):
                    return answer
                failed = answer
        if failed is None:
            raise UpstreamSilent(f"no upstream resolver answered ({'; '.join(problems) or 'none is configured'})")
        return failed


async def _ask(server: Server, question: Question) -> Message:
    query = encode_query(secrets.randbelow(1 << 16), question)
    answer = await _ask_udp(server, query, question)
    return await _ask_tcp(server, query, question) if answer.truncated else answer


async def _ask_udp(server: Server, query: bytes, question: Question) -> Message:
    loop = asyncio.get_running_loop()
    with _socket(server, socket.SOCK_DGRAM) as sock:
        await loop.sock_connect(sock, (str(server.address), server.port))
        await loop.sock_sendall(sock, query)
        while True:  # what isn't the answer is somebody else's attempt: wait on, within the caller's timeout
            data = await loop.sock_recv(sock, 65535)
            answer = _matching(data, query, question)
            if answer is not None:
                return answer


async def _ask_tcp(server: Server, query: bytes, question: Question) -> Message:
    loop = asyncio.get_running_loop()
    with _socket(server, socket.SOCK_STREAM) as sock:
        await loop.sock_connect(sock, (str(server.address), server.port))
        await loop.sock_sendall(sock, _LENGTH.pack(len(query)) + query)
        (length,) = _LENGTH.unpack(await _read(sock, _LENGTH.size))
        answer = _matching(await _read(sock, length), query, question)
    if answer is None:
        raise WireError("the answer is to another question")
    return answer


def _socket(server: Server, kind: socket.SocketKind) -> socket.socket:
    sock = socket.socket(socket.AF_INET if server.address.version == 4 else socket.AF_INET6, kind)
    sock.setblocking(False)
    return sock


async def _read(sock: socket.socket, size: int) -> bytes:
    loop, data = asyncio.get_running_loop(), b""
    while len(data) < size:
        more = await loop.sock_recv(sock, size - len(data))
        if not more:
            raise EOFError("the connection was closed in the middle of an answer")
        data += more
    return data


def _matching(data: bytes, query: bytes, question: Question) -> Message | None:
    if len(data) < 2 or data[:2] != query[:2]:
        return None
    answer = decode_message(data)
    asked = answer.question
    same = asked is not None and (asked.name.lower(), asked.type, asked.class_) == (
        question.name.lower(),
        question.type,
        question.class_,
    )
    return answer if answer.is_response and same else None
