"""TCP that is no HTTP: bytes, banners, segments, options; refused, as no rule of protocol tcp allows it."""

from tests.live.bypass import places
from tests.live.bypass.vector import CLOSED, DENIED, REFUSED, Vector
from tests.live.pod import GATEWAY_LINK_LOCAL

_NOT_HTTP = "connection_denied not_http"
_ONE_BY_ONE = (*"GET /", "{token}", *f" HTTP/1.1\r\nHost: {places.DENIED}\r\n\r\n")


def _raw(id: str, address: str, port: int, probe: str = "streams.raw", *more: object) -> Vector:
    return Vector(id=id, probe=probe, arguments=(address, port, *more), expected=CLOSED, event=_NOT_HTTP)


def _banner(id: str, port: int, banner: str, address: str = places.DENIED) -> Vector:
    return Vector(
        id=id,
        probe="streams.silent",
        arguments=(address, port),
        expected=CLOSED,
        event="connection_denied default_deny",
        through=banner,
    )


VECTORS = (
    _raw("raw bytes to an address", places.V4, 443),
    _raw("raw bytes to an IPv6 address", places.V6, 443),
    _raw("raw bytes to a denied name", places.DENIED, 443),
    _raw("raw bytes to an allowed name", places.ALLOWED, 443),
    _raw("raw bytes to port 80 of an allowed name", places.ALLOWED, 80),
    _raw("port 1", places.V4, 1),
    _raw("port 65535", places.V4, 65535),
    _raw("a remote port with the number of the transparent listener", places.V4, 14100),
    _raw("a remote port with the number of the control port", places.V4, 14102),
    _raw("a remote port with the number of the resolver", places.V4, 14153),
    Vector(
        id="a sweep of 64 ports",
        probe="streams.sweep",
        arguments=(places.V4, list(range(1000, 65000, 1000))),
        expected=CLOSED,
        event=_NOT_HTTP,
    ),
    _banner("SSH, whose server speaks first", 22, "SSH-2.0-OpenSSH_9.2"),
    _banner("SMTP, whose server speaks first", 25, "220 mail ESMTP"),
    _banner("FTP, whose server speaks first", 21, "220 ftp"),
    _banner("SMTP to an address", 25, "220 mail ESMTP", places.V4),
    _banner("SMTP to an allowed name", 25, "220 mail ESMTP", places.ALLOWED),
    _raw("data in the first packet (TCP Fast Open)", places.V4, 443, "streams.fast_open"),
    _raw("data in the first packet, IPv6", places.V6, 443, "streams.fast_open"),
    _raw("multipath TCP", places.V4, 443, "streams.multipath"),
    _raw("urgent data", places.V4, 443, "streams.urgent"),
    _raw("a half-closed connection", places.V4, 443, "streams.half_closed"),
    Vector(
        id="a reset right behind the data",
        probe="streams.aborted",
        arguments=(places.V4, 443),
        expected=("sent",),
        event=_NOT_HTTP,
    ),
    _raw(
        "two bytes first, then bytes that are no protocol",
        places.ALLOWED,
        443,
        "streams.pieces",
        "GE",
        "\x00{token}\r\n\r\n",
    ),
    _raw("half of a TLS record's head, then raw bytes", places.ALLOWED, 443, "streams.pieces", "\x16", "\x07{token}"),
    _raw("four kilobytes of NUL, then data", places.ALLOWED, 443, "streams.pieces", "\x00" * 4096, "{token}"),
    Vector(
        id="a request in one-byte segments, to a denied name",
        probe="streams.pieces",
        arguments=(places.DENIED, 80, *_ONE_BY_ONE),
        expected=DENIED,
        event="request_denied default_deny",
    ),
    Vector(
        id="a connection from before the rules",
        probe="streams.go_on",
        arguments=("tcp4",),
        expected=("closed", "timeout", "ECONNRESET"),
    ),
    Vector(
        id="an IPv6 connection from before the rules",
        probe="streams.go_on",
        arguments=("tcp6",),
        expected=("closed", "timeout", "ECONNRESET"),
    ),
    Vector(
        id="bound to the link",
        probe="streams.bound",
        arguments=(places.V4, 443),
        expected=(*REFUSED, "timeout"),
    ),
    Vector(
        id="bound to the link, IPv6",
        probe="streams.bound",
        arguments=(places.V6, 443),
        expected=(*REFUSED, "timeout"),
    ),
    Vector(
        id="a neighbour's link-local address",
        probe="streams.raw",
        arguments=(f"{GATEWAY_LINK_LOCAL}%eth0", 443),
        expected=REFUSED,
    ),
)
