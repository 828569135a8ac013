"""
The upstream's other half: ``python -m bench.live PORT CERTIFICATE KEY [ADDRESS]``, for what nginx can't do.

``POST /upload`` is answered with the number of bytes that came, ``GET /events?count=N`` with N server-sent events that
say when they were sent, ``GET /echo`` is a WebSocket.
"""

import asyncio
import ssl
import sys
import time
from typing import Any

import uvloop

from bench.websocket import accept_key, echo
from bench.wire import ZEROS, content_length

INTERVAL_SECONDS = 0.01


class Live(asyncio.Protocol):
    """One connection: a request at a time, or a WebSocket."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: Any = transport  # uvloop's, which is no asyncio.Transport
        self._data = b""
        self._size = self._left = 0
        self._upgraded = False
        self._events: asyncio.Task[None] | None = None

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - the interface's
        if self._events:
            self._events.cancel()

    def data_received(self, data: bytes) -> None:
        if self._left:
            self._upload(data)
            return
        self._data += data
        if self._upgraded:
            out, self._data = echo(self._data)
            self._transport.write(out)
            return
        head, end, rest = self._data.partition(b"\r\n\r\n")
        if end:
            self._data = b""
            self._request(head, rest)

    def _request(self, head: bytes, rest: bytes) -> None:
        path, lower = head.split(b" ", 2)[1], head.lower() + b"\r\n"
        if path == b"/upload":
            self._size = self._left = content_length(lower)
            self._upload(rest)
        elif path.startswith(b"/events?count="):
            self._events = asyncio.create_task(self._send_events(int(path.partition(b"=")[2])))
        elif path == b"/echo":
            self._upgraded = True
            at = lower.index(b"sec-websocket-key:") + len("sec-websocket-key:")
            key = head[at:].partition(b"\r\n")[0].strip().decode()
            fields = f"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: {accept_key(key)}\r\n"
            self._transport.write(f"HTTP/1.1 101 Switching Protocols\r\n{fields}\r\n".encode())
        else:
            self._transport.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")

    def _upload(self, data: bytes) -> None:
        if any(not ZEROS.startswith(data[at : at + len(ZEROS)]) for at in range(0, len(data), len(ZEROS))):
            self._transport.abort()  # not what was sent
            return
        self._left -= len(data)
        if self._left == 0:
            body = str(self._size)
            self._transport.write(f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode())

    async def _send_events(self, count: int) -> None:
        self._transport.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-store\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n"
        )
        for _ in range(count):
            event = b"data: %d\n\n" % time.monotonic_ns()
            self._transport.write(b"%x\r\n%b\r\n" % (len(event), event))
            await asyncio.sleep(INTERVAL_SECONDS)
        self._transport.write(b"0\r\n\r\n")


async def _serve(port: int, certificate: str, key: str, address: str = "127.0.0.1") -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.set_alpn_protocols(["http/1.1"])
    context.load_cert_chain(certificate, key)
    server = await asyncio.get_running_loop().create_server(Live, address, port, ssl=context, backlog=1024)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(_serve(int(sys.argv[1]), *sys.argv[2:]))
