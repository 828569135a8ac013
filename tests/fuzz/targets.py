"""What is fuzzed: functions of bytes that may refuse them, and must not do anything else with them."""

import asyncio
import json
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from functools import cache
from ipaddress import IPv4Network, IPv6Network
from itertools import pairwise
from typing import Any, Final

from mitmproxy import options
from mitmproxy.connection import Client
from mitmproxy.dns import DNSMessage
from mitmproxy.proxy import commands, context, events
from mitmproxy.proxy.layers import DNSLayer

from addons.resolver import Resolver, keep_labels
from sidecar.errors import SidecarError
from sidecar.events.text import dumps, printable
from sidecar.names.desk import Desk
from sidecar.names.handed_out import HandedOut
from sidecar.names.questions import Zone
from sidecar.names.synthetic import SyntheticNames
from sidecar.names.wire import WireError, decode_message
from sidecar.pki.load import CaText, parse_ca
from sidecar.policy import parse_policy
from sidecar.sniff import sniff
from tests.fuzz.laboratory import Laboratory
from tests.hostile.http2 import PREFACE
from tests.names.rules import Table

CUT: Final = b"\xfe\xff\xfe"  # where a fuzzer's bytes are cut into segments
_CONNECT: Final = b"CONNECT %s:443 HTTP/1.1\r\nHost: %s:443\r\n\r\n"


@cache
def laboratory() -> Laboratory:
    return Laboratory()


def _pieces(data: bytes) -> list[bytes]:
    return [piece for piece in data.split(CUT)[:20] if piece]


def http1(data: bytes) -> None:
    """A client of the explicit proxy; what is allowed is answered."""
    laboratory().talk(*_pieces(data), answer=[b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"])


def intercepted_http1(data: bytes) -> None:
    laboratory().talk(_CONNECT % (b"up.test", b"up.test"), *_pieces(data), answer=[b"\x15\x03\x03\x00\x02\x02\x28"])


def client_hello(data: bytes) -> None:
    """What comes behind a CONNECT: to be opened, to pass through, or to be refused."""
    for name in (b"up.test", b"pinned.test", b"denied.test"):
        laboratory().talk(_CONNECT % (name, name), *_pieces(data))


def http2(data: bytes) -> None:
    """Frames inside of TLS to a name that is denied, and so answered."""
    laboratory().talk(_CONNECT % (b"denied.test", b"denied.test"), tls=[PREFACE, *_pieces(data)])


def answer(data: bytes) -> None:
    """An upstream's bytes."""
    request = b"GET http://up.test/ HTTP/1.1\r\nHost: up.test\r\n\r\n"
    laboratory().talk(request, answer=_pieces(data))


def dns(data: bytes) -> None:
    """A datagram to the resolver: answered by one that fits it, or not at all; nothing is asked upstream."""
    layer, resolver, client = _dns()
    sent: list[bytes] = []

    def carry_out(event: events.Event) -> None:
        for command in layer.handle_event(event):
            assert not isinstance(command, commands.OpenConnection), "left to mitmproxy's resolver"
            if isinstance(command, commands.SendData):
                sent.append(command.data)
            elif isinstance(command, commands.StartHook) and command.name == "dns_request":
                (flow,) = command.args()
                asyncio.run(resolver.dns_request(flow))
                assert flow.response is not None
                carry_out(events.HookCompleted(command, None))
            elif isinstance(command, commands.StartHook) and command.blocking:
                carry_out(events.HookCompleted(command, None))

    carry_out(events.Start())
    carry_out(events.DataReceived(client, data))
    for message in sent:
        read = DNSMessage.unpack(message)
        assert not read.query and message[:2] == data[:2]


def _dns() -> tuple[DNSLayer, Resolver, Client]:
    async def nobody(_: object) -> Any:
        raise AssertionError("asked upstream")

    keep_labels()
    table = Table(allowed=frozenset({"a.test", "b.test"}))
    synthetic = SyntheticNames(bytes(32), IPv4Network("198.18.0.0/15"), IPv6Network("fd00::/64"), 100)
    desk = Desk(lambda: table, Zone(search=("cluster.local",)), synthetic, HandedOut())
    client = Client(peername=("127.0.0.1", 1), sockname=("127.0.0.1", 53), transport_protocol="udp")
    layer = DNSLayer(context.Context(client, options.Options()))
    return layer, Resolver(desk, nobody, lambda *_: None), client


def dns_answer(data: bytes) -> None:
    with suppress(WireError):
        decode_message(data)


def first_bytes(data: bytes) -> None:
    """What was decided of a prefix isn't changed by what follows."""
    decided = [sniff(data[:end]) for end in range(1, min(len(data), 64))]
    for earlier, later in pairwise(decided):
        assert earlier.name == "UNDECIDED" or earlier is later


def policy(data: bytes) -> None:
    text = data.decode("utf-8", "replace")
    try:
        parse_policy(text, "policy.yaml")
    except SidecarError as e:
        assert str(e)


def ca(data: bytes) -> None:
    """A Secret's two files, one of them by what is behind the cut."""
    certificate, _, key = data.partition(CUT)
    try:
        parse_ca(CaText(certificate=certificate, key=key), datetime(2026, 1, 1, tzinfo=UTC))
    except SidecarError as e:
        assert "PRIVATE" not in str(e)


def event(data: bytes) -> None:
    """Whatever text a client has sent is one line of JSON."""
    text = data.decode("utf-8", "surrogateescape")
    line = dumps({"path": printable(text), "raw": text, "number": len(text)})
    assert b"\n" not in line
    json.loads(line.decode("utf-8"))


TARGETS: Final[dict[str, Callable[[bytes], None]]] = {
    "http1": http1,
    "intercepted_http1": intercepted_http1,
    "client_hello": client_hello,
    "http2": http2,
    "answer": answer,
    "dns": dns,
    "dns_answer": dns_answer,
    "first_bytes": first_bytes,
    "policy": policy,
    "ca": ca,
    "event": event,
}
