"""The Internet's resolver: every name has an address, every other type one record; RFC 1035."""

import socket
import struct
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from ipaddress import ip_address

from sidecar.hosts import IPAddress
from tests.live.bypass import places

_A, _TXT, _AAAA = 1, 16, 28


class Resolver:
    """Answers messages; a name below ``rebind.example.com`` has a private address from its second answer on."""

    def __init__(self) -> None:
        self._asked: Counter[tuple[str, int]] = Counter()

    def answer(self, query: bytes) -> bytes:
        name, at = "", 12
        while size := query[at]:
            name += query[at + 1 : at + 1 + size].decode("latin-1") + "."
            at += 1 + size
        name, question = name[:-1].lower(), query[12 : at + 5]
        (kind,) = struct.unpack_from("!H", query, at + 1)
        records = [
            b"\xc0\x0c" + struct.pack("!HHIH", kind, 1, 1, len(data)) + data for data in self._records(name, kind)
        ]
        return query[:2] + struct.pack("!HHHHH", 0x8180, 1, len(records), 0, 0) + question + b"".join(records)

    def _records(self, name: str, kind: int) -> list[bytes]:
        if kind not in (_A, _AAAA):
            return [b"\x08internet"] if kind == _TXT else []
        addresses: Sequence[IPAddress] = places.addresses_of(name)
        if name.endswith(f".{places.REBIND}"):
            self._asked[name, kind] += 1
            if self._asked[name, kind] > 1:
                addresses = (ip_address(places.PRIVATE_V4), ip_address(places.PRIVATE_V6))
        return [address.packed for address in addresses if address.version == (4 if kind == _A else 6)]


def start(addresses: Sequence[str], note: Callable[[bytes], None]) -> None:
    """Serve UDP and TCP at each of *addresses*; *note* gets every message."""
    resolver = Resolver()
    for address in addresses:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        datagrams = socket.socket(family, socket.SOCK_DGRAM)
        datagrams.bind((address, 53))
        listener = socket.create_server((address, 53), family=family)
        threading.Thread(target=_datagrams, args=(datagrams, resolver), daemon=True).start()
        threading.Thread(target=_streams, args=(listener, resolver, note), daemon=True).start()


def _datagrams(sock: socket.socket, resolver: Resolver) -> None:
    while True:
        query, client = sock.recvfrom(65535)
        try:
            sock.sendto(resolver.answer(query), client)
        except (IndexError, struct.error):
            continue  # no DNS: it was seen, which is all that counts


def _streams(listener: socket.socket, resolver: Resolver, note: Callable[[bytes], None]) -> None:
    while True:
        client, _ = listener.accept()
        try:
            client.settimeout(3)
            data = client.recv(65535)
            note(data)
            reply = resolver.answer(data[2:])
            client.sendall(struct.pack("!H", len(reply)) + reply)
        except (IndexError, struct.error, OSError):
            continue
        finally:
            client.close()
