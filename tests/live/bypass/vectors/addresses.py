"""Destinations given as addresses, in every notation: policy allows names alone."""

from tests.live.bypass import places
from tests.live.bypass.vector import DENIED, MISMATCH, Vector
from tests.live.pod import GATEWAY_V4

_GET = "GET /{token} HTTP/1.1\r\nHost: HOST\r\n\r\n"
_TLS_DENIED = tuple(f"{said}, intercepted" for said in DENIED)


def _http(id: str, address: str, host: str | None = None) -> Vector:
    text = _GET.replace("HOST", host or (f"[{address}]" if ":" in address else address))
    return Vector(
        id=id,
        probe="requests.plain",
        arguments=(address, 80, text),
        expected=DENIED,
        event="request_denied default_deny",
    )


def _https(id: str, address: str) -> Vector:
    text = _GET.replace("HOST", f"[{address}]" if ":" in address else address)
    return Vector(
        id=id,
        probe="requests.tls",
        arguments=(address, 443, None, text),
        expected=_TLS_DENIED,
        event="request_denied default_deny",
    )


VECTORS = (
    _http("HTTP to an IPv4 address", places.V4),
    _http("HTTP to an IPv6 address", places.V6),
    _https("HTTPS to an IPv4 address", places.V4),
    _https("HTTPS to an IPv6 address", places.V6),
    # The C library turns these notations into the address, so that the connection goes there.
    _http("an address as one decimal number", "3405803786", places.V4),
    _http("an address as one hexadecimal number", "0xcb00710a", places.V4),
    _http("an address with octal parts", "0313.0.0161.012", places.V4),
    _http("an address of three parts", "203.0.28938", places.V4),
    _http("IPv4 mapped into IPv6", f"::ffff:{places.V4}", places.V4),
    _http("IPv4 behind the NAT64 prefix", places.NAT64),
    _http("IPv4 in 6to4", places.SIX_TO_FOUR),
    _http("a private address", places.PRIVATE_V4),
    _http("a unique local address", places.PRIVATE_V6),
    _http("a carrier's address (CGNAT)", places.CGNAT),
    _http("the metadata service", places.METADATA_V4),
    _http("the metadata service by IPv6", places.METADATA_V6),
    _http("the gateway", str(GATEWAY_V4)),
    _http("a synthetic address that stands for no name", places.UNKNOWN_SYNTHETIC_V4),
    _http("a synthetic IPv6 address that stands for no name", places.UNKNOWN_SYNTHETIC_V6),
    _http("the address of an allowed name, instead of the name", places.ALLOWED_V4),
    Vector(
        id="the same, with the name as Host",
        probe="requests.plain",
        arguments=(places.ALLOWED_V4, 80, _GET.replace("HOST", places.ALLOWED)),
        expected=MISMATCH,
        event="request_denied identity_mismatch",
    ),
)
