"""What fuzzers begin with: bytes that go deep."""

import base64
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import cache
from typing import Final

from cryptography.hazmat.primitives.serialization import Encoding
from hpack import Encoder
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    PriorityFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)
from mitmproxy import dns
from mitmproxy.net.dns import types

from sidecar.pki.session_ca import issue_session_ca
from tests.fuzz.laboratory import POLICY
from tests.fuzz.targets import CUT
from tests.hostile import answers, mutations
from tests.hostile.http2 import request
from tests.live.test_client_hello import HELLO


def _http1() -> list[bytes]:
    plain = [m.to(b"http://up.test/x", b"up.test", b"x") for m in mutations.MUTATIONS[::9]]
    joined = [b"CONNECT up.test:443 HTTP/1.1\r\nHost: up.test\r\n\r\n" + CUT + HELLO]
    return [*plain, *joined, *(data.replace(b"\r\n\r\n", b"\r\n" + CUT + b"\r\n") for data in plain[:5])]


def _http2() -> list[bytes]:
    encoder = Encoder()
    block = encoder.encode([(str(n).encode(), str(v).encode()) for n, v in request("denied.test", "/")])
    head = HeadersFrame(1, data=block, flags=["END_HEADERS", "END_STREAM"])
    open_head = HeadersFrame(3, data=block, flags=["END_HEADERS"])
    frames: list[Sequence[Frame]] = [
        [SettingsFrame(0, settings={3: 10, 4: 65_535, 5: 16_384}), head],
        [SettingsFrame(0), open_head, DataFrame(3, b"abc"), DataFrame(3, b"", flags=["END_STREAM"])],
        [
            SettingsFrame(0),
            HeadersFrame(1, data=block[:5]),
            ContinuationFrame(1, data=block[5:], flags=["END_HEADERS"]),
        ],
        [SettingsFrame(0), head, RstStreamFrame(1, 8), PingFrame(0, b"12345678"), WindowUpdateFrame(0, 100)],
        [SettingsFrame(0), PriorityFrame(5, 3), WindowUpdateFrame(1, 1), GoAwayFrame(0, 1, 0), head],
        [SettingsFrame(0, flags=["ACK"]), DataFrame(7, b"x"), SettingsFrame(0, settings={4: 2**31 - 1})],
    ]
    return [b"".join(frame.serialize() for frame in some) for some in frames]


def _dns() -> list[bytes]:
    def query(name: str, type_: int, class_: int = 1) -> bytes:
        edns = [dns.ResourceRecord("", types.OPT, 1232, 0, b"\0\x0a\0\x02ab")]
        questions = [dns.Question(name, type_, class_)]
        return dns.DNSMessage(7, True, 0, False, False, True, False, 0, 0, questions, [], [], edns).packed

    asked = [
        query(name, type_) for name in ("a.test", "x.test", "_a._tcp.test") for type_ in (1, 28, 5, 15, 16, 33, 65, 255)
    ]
    answers_ = []
    for packed in asked[:4]:
        message = dns.DNSMessage.unpack(packed)
        records = [dns.ResourceRecord.TXT("a.test", "x"), dns.ResourceRecord.CNAME("a.test", "b.test")]
        answers_.append(message.succeed(records).packed)
    to_root = b"\0\7\1\0\0\1\0\1\0\0\0\0\1x\xc0\4\0\1\0\1" + b"\xc0\x0c\0\5\0\1\0\0\0\0\0\2\xc0\x0c"
    return [*asked, *answers_, to_root, b"\0\7\1\0\0\1\0\0\0\0\0\0\xc0\x0c\0\1\0\1"]


def _ca() -> list[bytes]:
    ca = issue_session_ca(common_name="fuzz", now=datetime(2026, 1, 1, tzinfo=UTC))
    der, odd = ca.certificate.public_bytes(Encoding.DER), list[bytes]()
    for kind in (0x28, 0x03, 0x1C):  # of the text in a name: kinds that the libraries read differently, or not
        body = base64.encodebytes(der.replace(b"\x0c\x04fuzz", bytes([kind]) + b"\x04fuzz"))
        odd.append(b"-----BEGIN CERTIFICATE-----\n" + body + b"-----END CERTIFICATE-----\n" + CUT + ca.key_pem())
    return [
        *odd,
        ca.chain_pem() + CUT + ca.key_pem(),
        ca.chain_pem() * 2 + CUT + ca.key_pem(),
        ca.key_pem() + CUT + ca.chain_pem(),
    ]


def _policy() -> list[bytes]:
    long = """version: 1
default: deny
rules:
  - name: one
    allow: ["*.example.com", "**.example.org", 192.0.2.0/24]
    methods: [GET, HEAD]
    paths: ["/a/*", "/b/**"]
    ports: [443, "1024-65535"]
    mode: audit
    expires: 2030-01-01T00:00:00Z
  - deny: ["internal.example.com"]
    protocol: tcp
network: {allow_addresses: ["10.0.0.0/8"], dns: real, dns_types: [TXT]}
"""
    return [
        POLICY.encode(),
        long.encode(),
        b"version: 1\nrules: &a [*a]\n",
        b"version: 1\nrules: [{<<: {allow: [x]}}]\n",
    ]


_SEEDS: Final[dict[str, Callable[[], list[bytes]]]] = {
    "http1": _http1,
    "intercepted_http1": lambda: [m.to(b"/x", b"up.test", b"x") for m in mutations.MUTATIONS[::9]],
    "client_hello": lambda: [
        HELLO,
        HELLO[:3] + CUT + HELLO[3:],
        HELLO[:3] + CUT + HELLO[3:].replace(b"pinned.test", b"pinned.te{t"),
        b"\x16\x03\x01\0\5\1\0\0\1\0",
        b"GET / HTTP/1.1\r\n\r\n",
    ],
    "http2": _http2,
    "answer": lambda: [m.raw for m in answers.MUTATIONS[::5]],
    "dns": _dns,
    "dns_answer": _dns,
    "first_bytes": lambda: [HELLO[:40], b"GET / HTTP/1.1\r\n", b"PRI * HTTP/2.0\r\n", b"\x16\x03"],
    "policy": _policy,
    "ca": _ca,
    "event": lambda: [b"/a\xff\xed\xa0\x80\xf0\x9f\x99\x82\r\n\x1b[0m\xe2\x80\xa8"],
}


@cache
def seeds(target: str) -> tuple[bytes, ...]:
    return tuple(_SEEDS[target]())
