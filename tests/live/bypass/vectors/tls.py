"""The handshake: pieces, a missing or foreign server name, an encrypted one; nothing becomes a raw tunnel."""

from tests.live.bypass import places
from tests.live.bypass.vector import CLOSED, DENIED, Vector

_TO_DENIED = f"GET /{{token}} HTTP/1.1\r\nHost: {places.DENIED}\r\n\r\n"
_TO_ALLOWED = f"GET /{{token}} HTTP/1.1\r\nHost: {places.ALLOWED}\r\n\r\n"
_MISMATCH = ("403 identity_mismatch, intercepted",)
_DENIED = tuple(f"{said}, intercepted" for said in DENIED)


def _tls(id: str, address: str, sni: str | None, text: str, expected: tuple[str, ...], event: str) -> Vector:
    return Vector(
        id=id,
        probe="requests.tls",
        arguments=(address, 443, sni, text),
        expected=expected,
        event=event if " " in event else f"request_denied {event}",
    )


def _hello(id: str, name: str, split: list[int], expected: tuple[str, ...], event: str | None) -> Vector:
    return Vector(id=id, probe="requests.hello", arguments=(name, 443, name, split), expected=expected, event=event)


VECTORS = (
    _tls("HTTPS to a denied name", places.DENIED, places.DENIED, _TO_DENIED, _DENIED, "default_deny"),
    _tls(
        "the SNI of a denied name, to an allowed one",
        places.ALLOWED,
        places.DENIED,
        _TO_DENIED,
        _MISMATCH,
        "identity_mismatch",
    ),
    _tls(
        "the SNI of an allowed name, to a denied one",
        places.DENIED,
        places.ALLOWED,
        _TO_ALLOWED,
        _MISMATCH,
        "identity_mismatch",
    ),
    _tls(
        "the SNI of an allowed name, to an address",
        places.V4,
        places.ALLOWED,
        _TO_ALLOWED,
        _MISMATCH,
        "identity_mismatch",
    ),
    _tls(
        "the SNI of an allowed name, to an IPv6 address",
        places.V6,
        places.ALLOWED,
        _TO_ALLOWED,
        _MISMATCH,
        "identity_mismatch",
    ),
    _tls(
        "the SNI of another allowed name",
        places.ALLOWED,
        places.ALSO_ALLOWED,
        _TO_ALLOWED,
        _MISMATCH,
        "identity_mismatch",
    ),
    _tls(
        "the SNI of a passed-through name, to a denied one",
        places.DENIED,
        places.PASSTHROUGH,
        _TO_DENIED,
        _MISMATCH,
        "identity_mismatch",
    ),
    _tls(
        "the SNI of a passed-through name, to an address",
        places.V4,
        places.PASSTHROUGH,
        _TO_DENIED,
        _MISMATCH,
        "identity_mismatch",
    ),
    _tls(
        "the SNI of a denied name, to a passed-through one",
        places.PASSTHROUGH,
        places.DENIED,
        _TO_DENIED,
        _MISMATCH,
        "identity_mismatch",
    ),
    _tls(
        "no SNI, to a denied name",
        places.DENIED,
        None,
        _TO_ALLOWED,
        ("421 identity_mismatch, intercepted",),
        "identity_mismatch",
    ),
    _tls(
        "an address as SNI, to an allowed name",
        places.ALLOWED,
        places.V4,
        f"GET /{{token}} HTTP/1.1\r\nHost: {places.V4}\r\n\r\n",
        ("421 identity_mismatch, intercepted", *_MISMATCH),
        "identity_mismatch",
    ),
    _tls(
        "raw bytes inside of TLS",
        places.ALLOWED,
        places.ALLOWED,
        "\x01\x02{token}\r\n",
        ("closed, intercepted",),
        "connection_denied not_http",
    ),
    _tls(
        "TLS inside of TLS",
        places.ALLOWED,
        places.ALLOWED,
        "\x16\x03\x01\x02\x00\x01{token}",
        ("closed, intercepted",),
        "connection_denied not_http",
    ),
    Vector(
        id="a ClientHello in one-byte segments, to a denied name",
        probe="requests.one_byte_segments",
        arguments=(places.DENIED, places.DENIED, places.DENIED),
        expected=("403 refused, intercepted",),
        event="request_denied default_deny",
    ),
    Vector(
        id="a ClientHello in one-byte segments, to an address with an allowed SNI",
        probe="requests.one_byte_segments",
        arguments=(places.V4, places.ALLOWED, places.ALLOWED),
        expected=("403 refused, intercepted",),
        event="request_denied identity_mismatch",
    ),
    Vector(
        id="a ClientHello in one-byte segments, to an allowed name",
        probe="requests.one_byte_segments",
        arguments=(places.ALLOWED, places.ALLOWED, places.ALLOWED),
        expected=("200 internet, intercepted",),
        event="request_closed",
        arrives=True,
    ),
    _hello(
        "encrypted client hello (ECH), to a denied name", places.DENIED, [], ("ServerHello",), "tls_handshake_failed"
    ),
    _hello(
        "encrypted client hello (ECH), to an allowed name", places.ALLOWED, [], ("ServerHello",), "tls_handshake_failed"
    ),
    *(
        _hello(f"a ClientHello cut behind byte {at}", places.DENIED, [at], ("ServerHello",), "tls_handshake_failed")
        for at in (1, 2, 5, 6, 9, 43, 100, 300)
    ),
    _hello(
        "a ClientHello cut into many pieces",
        places.ALLOWED,
        list(range(1, 200, 7)),
        ("ServerHello",),
        "tls_handshake_failed",
    ),
    Vector(
        id="a ClientHello that promises more than ever comes",
        probe="streams.pieces",
        arguments=(places.ALLOWED, 443, "\x16\x03\x01\x00\x40\x01\x00\x00\x3c\x03\x03{token}" + "x" * 80),
        expected=CLOSED,
        event="tls_handshake_failed",
    ),
    Vector(
        id="SSL 2.0",
        probe="streams.pieces",
        arguments=(places.ALLOWED, 443, "\x80\x2e\x01\x00\x02{token}" + "x" * 40),
        expected=CLOSED,
        event="connection_denied not_http",
    ),
)
