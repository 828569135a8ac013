"""A resolver on loopback, over UDP and TCP, with another codec than the one under test."""

import asyncio
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from ipaddress import ip_address

from mitmproxy import dns
from mitmproxy.net.dns import response_codes

from sidecar.names.upstream import Server

type Answerer = Callable[[dns.DNSMessage, str], dns.DNSMessage | bytes | None]


@dataclass
class Stub:
    server: Server
    asked: list[tuple[str, int, str]] = field(default_factory=list)  # name, type, transport


class _Udp(asyncio.DatagramProtocol):
    def __init__(self, serve: Callable[[bytes, str], bytes | None]) -> None:
        self._serve = serve

    def connection_made(self, transport: asyncio.DatagramTransport) -> None:  # type: ignore[override]
        self._transport = transport

    def datagram_received(self, data: bytes, addr: object) -> None:
        answer = self._serve(data, "udp")
        if answer is not None:
            self._transport.sendto(answer, addr)  # type: ignore[arg-type]


@asynccontextmanager
async def stub_resolver(answer: Answerer) -> AsyncIterator[Stub]:
    loop = asyncio.get_running_loop()

    def serve(data: bytes, transport: str) -> bytes | None:
        query = dns.DNSMessage.unpack(data)
        assert query.question is not None
        stub.asked.append((query.question.name, query.question.type, transport))
        reply = answer(query, transport)
        return reply.packed if isinstance(reply, dns.DNSMessage) else reply

    async def over_tcp(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        (length,) = struct.unpack("!H", await reader.readexactly(2))
        reply = serve(await reader.readexactly(length), "tcp")
        if reply is not None:
            writer.write(struct.pack("!H", len(reply)) + reply)
        writer.close()

    for _ in range(20):  # a port that is free for both
        tcp = await asyncio.start_server(over_tcp, "127.0.0.1", 0)
        port = tcp.sockets[0].getsockname()[1]
        try:
            udp, _protocol = await loop.create_datagram_endpoint(lambda: _Udp(serve), local_addr=("127.0.0.1", port))
            break
        except OSError:
            tcp.close()
    stub = Stub(Server(ip_address("127.0.0.1"), port))
    try:
        yield stub
    finally:
        udp.close()
        tcp.close()


def table(records: dict[tuple[str, int], list[dns.ResourceRecord]]) -> Answerer:
    """NXDOMAIN for names that aren't in the table, NOERROR for other types of those that are."""
    names = {name for name, _ in records}

    def answer(query: dns.DNSMessage, _transport: str) -> dns.DNSMessage:
        assert query.question is not None
        if query.question.name not in names:
            return query.fail(response_codes.NXDOMAIN)
        return query.succeed(records.get((query.question.name, query.question.type), []))

    return answer
