"""
The Internet's host: answers on every TCP port, in TLS or not, resolves every name, and notes what arrives.

It runs in the namespace that plays the Internet. Each line on standard input asks for what was seen since the last
one: packets as [protocol, destination, port], and the tokens that were found in packets or inside of TLS.
"""

import json
import re
import socket
import ssl
import struct
import sys
import tempfile
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import h2.config
import h2.connection
import h2.events

from tests.live.bypass import dns_server, places
from tests.live.upstreams import Root

TOKEN: Final = re.compile(rb"row-[0-9a-f]{12}", re.IGNORECASE)
MARKER: Final = re.compile(rb"marker-([0-9]+)")
_HTTP2: Final = h2.config.H2Configuration(client_side=False, header_encoding="utf-8", validate_inbound_headers=False)
CATCH_ALL: Final = 9999  # every TCP port is redirected there, and 53 to the resolver
BANNERS: Final = {
    21: b"220 ftp\r\n",
    22: b"SSH-2.0-OpenSSH_9.2\r\n",
    25: b"220 mail ESMTP\r\n",
    3306: b"J\0\0\0\n8.0.36\0",
    5900: b"RFB 003.008\n",
}
# RFC 4861 and RFC 3810: neighbour discovery and listener reports, which the kernel sends by itself.
_KERNEL_ICMPV6: Final = frozenset({130, 131, 132, 133, 134, 135, 136, 143})


class Seen:
    """What has arrived; filled by threads, taken by the one that answers."""

    def __init__(self) -> None:
        self._lock = threading.Condition()
        self._packets: list[tuple[int, str, int]] = []
        self._tokens: set[str] = set()
        self._marker = 0

    def packet(self, protocol: int, destination: str, port: int, data: bytes) -> None:
        with self._lock:
            if (marker := MARKER.search(data)) is not None:
                self._marker = int(marker[1])
                self._lock.notify_all()
                return
            self._packets.append((protocol, destination, port))
            self._tokens |= {token.decode().lower() for token in TOKEN.findall(data)}

    def data(self, data: bytes) -> None:
        with self._lock:
            self._tokens |= {token.decode().lower() for token in TOKEN.findall(data)}

    def take(self, marker: int) -> dict[str, Any]:
        """All that came before the packet with this marker."""
        with self._lock:
            arrived = self._lock.wait_for(lambda: self._marker >= marker, timeout=10)
            taken = {"arrived": arrived, "packets": sorted(set(self._packets)), "tokens": sorted(self._tokens)}
            self._packets.clear()
            self._tokens.clear()
        return taken


def sniff(link: socket.socket, seen: Seen) -> None:
    """Note every IP packet that comes in, but what kernels send by themselves."""
    while True:
        data, (_, ethertype, direction, *_) = link.recvfrom(65535)
        if direction == socket.PACKET_OUTGOING:
            continue
        if ethertype == 0x0800:
            protocol, at, to = data[9], (data[0] & 15) * 4, socket.inet_ntop(socket.AF_INET, data[16:20])
        elif ethertype == 0x86DD:
            protocol, at, to = data[6], 40, socket.inet_ntop(socket.AF_INET6, data[24:40])
            if protocol == 0 and data[40] == 58:
                protocol, at = 58, 48  # listener reports have a router alert in front
            if protocol == 58 and data[at] in _KERNEL_ICMPV6 and TOKEN.search(data) is None:
                continue
        else:
            continue
        port = struct.unpack_from("!H", data, at + 2)[0] if protocol in (6, 17, 136) and len(data) >= at + 4 else 0
        seen.packet(protocol, to, port, data[at:])


def original_port(client: socket.socket) -> int:
    """The port that the client dialled (SO_ORIGINAL_DST, IP6T_SO_ORIGINAL_DST)."""
    v4 = client.family == socket.AF_INET
    raw = client.getsockopt(*((0, 80, 16) if v4 else (41, 80, 28)))
    return int(struct.unpack_from("!H", raw, 2)[0])


def talk(client: socket.socket, tls: ssl.SSLContext, seen: Seen) -> None:
    """Greet, or read; open TLS; answer each request; keep what was said."""
    with suppress(OSError, ssl.SSLError), client:
        client.settimeout(600)  # what is kept open from before the rules must be so still
        if (banner := BANNERS.get(original_port(client))) is not None:
            client.sendall(banner)
            while data := client.recv(65536):
                seen.data(data)
            return
        first = client.recv(1, socket.MSG_PEEK)
        stream = tls.wrap_socket(client, server_side=True) if first == b"\x16" else client
        if isinstance(stream, ssl.SSLSocket) and stream.selected_alpn_protocol() == "h2":
            talk_http2(stream, seen)
            return
        head = b""
        while data := stream.recv(65536):
            seen.data(data)
            head = head[-65536:] + data
            if head.endswith(b"\r\n\r\n") or not head[:1].isupper():
                stream.sendall(respond(head) * max(1, head.count(b"\r\n\r\n")))
                head = b""


def talk_http2(stream: ssl.SSLSocket, seen: Seen) -> None:
    server = h2.connection.H2Connection(_HTTP2)
    server.initiate_connection()
    stream.sendall(server.data_to_send())
    while data := stream.recv(65536):
        for event in server.receive_data(data):
            if isinstance(event, h2.events.RequestReceived):
                seen.data(repr(event.headers).encode())
            if isinstance(event, h2.events.StreamEnded):
                assert event.stream_id is not None
                server.send_headers(event.stream_id, [(":status", "200"), ("content-length", "9")])
                server.send_data(event.stream_id, b"internet\n", end_stream=True)
        stream.sendall(server.data_to_send())


def respond(head: bytes) -> bytes:
    if head.startswith(b"GET /redirect"):
        return b"HTTP/1.1 302 Found\r\nLocation: http://denied.example.com/\r\nContent-Length: 0\r\n\r\n"
    return b'HTTP/1.1 200 OK\r\nAlt-Svc: h3=":443"\r\nContent-Length: 9\r\n\r\ninternet\n'


def accept(listener: socket.socket, tls: ssl.SSLContext, seen: Seen) -> None:
    while True:
        client, _ = listener.accept()
        threading.Thread(target=talk, args=(client, tls, seen), daemon=True).start()


def main(roots: str) -> None:
    seen, root = Seen(), Root(Path(roots))
    names = (places.ALLOWED, places.ALSO_ALLOWED, places.PASSTHROUGH, places.DENIED)
    tls = root.context(*names, alpn=("h2", "http/1.1"))
    link = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(3))
    link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
    link.bind(("eth0", 3))
    threading.Thread(target=sniff, args=(link, seen), daemon=True).start()
    for family, address in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")):
        listener = socket.create_server((address, CATCH_ALL), family=family, backlog=256)
        threading.Thread(target=accept, args=(listener, tls, seen), daemon=True).start()
    dns_server.start((places.RESOLVER_V4, places.RESOLVER_V6, places.V4, places.V6), seen.data)
    print("ready", flush=True)
    for line in sys.stdin:
        print(json.dumps(seen.take(int(line))), flush=True)


if __name__ == "__main__":
    tempfile.tempdir = sys.argv[1]
    main(sys.argv[1])
