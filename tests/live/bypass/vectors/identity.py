"""Host, :authority, absolute-form, CONNECT: what the request names is what the connection was made to."""

from tests.live.bypass import places
from tests.live.bypass.vector import DENIED, MALFORMED, MISMATCH, Vector

_DENIED_TLS = tuple(f"{said}, intercepted" for said in DENIED)
_OK = f"GET / HTTP/1.1\r\nHost: {places.ALLOWED}\r\n\r\n"


def _head(line: str, *headers: str) -> str:
    return "\r\n".join((line, *headers)) + "\r\n\r\n"


def _inside(id: str, text: str, *, malformed: bool = False, first: str = "") -> Vector:
    """Within TLS to the allowed name, with its SNI."""
    expected = tuple(f"{said}, intercepted" for said in (MALFORMED if malformed else MISMATCH))
    texts = (first, text) if first else (text,)
    return Vector(
        id=id,
        probe="requests.tls",
        arguments=(places.ALLOWED, 443, places.ALLOWED, *texts),
        expected=expected,
        event="request_denied malformed_request" if malformed else "request_denied identity_mismatch",
    )


def _plain(id: str, text: str, expected: tuple[str, ...], address: str = places.ALLOWED) -> Vector:
    reason = expected[0].partition(" ")[2]
    return Vector(
        id=id,
        probe="requests.plain",
        arguments=(address, 80, text),
        expected=expected,
        event=f"request_denied {reason}",
    )


def _stream(id: str, *heads: tuple[str, list[tuple[str, str]]], expected: tuple[str, ...], event: str) -> Vector:
    return Vector(
        id=id,
        probe="requests.streams",
        arguments=(places.ALLOWED, places.ALLOWED, *heads),
        expected=expected,
        event=event,
    )


_LINE = "GET /{token} HTTP/1.1"

VECTORS = (
    _inside("another Host (domain fronting)", _head(_LINE, f"Host: {places.DENIED}")),
    _inside("another allowed name as Host", _head(_LINE, f"Host: {places.ALSO_ALLOWED}")),
    _inside("a later request with another Host", _head(_LINE, f"Host: {places.DENIED}"), first=_OK),
    _inside("an address as Host", _head(_LINE, f"Host: {places.V4}")),
    _inside("an address as a decimal number as Host", _head(_LINE, "Host: 3405803786"), malformed=True),
    _inside("the metadata service as Host", _head(_LINE, f"Host: {places.METADATA_V4}")),
    _inside("localhost as Host", _head(_LINE, "Host: localhost")),
    _inside("another port in Host", _head(_LINE, f"Host: {places.ALLOWED}:8443")),
    _inside("user information in Host", _head(_LINE, f"Host: {places.ALLOWED}@{places.DENIED}"), malformed=True),
    _inside("two Host headers", _head(_LINE, f"Host: {places.ALLOWED}", f"Host: {places.DENIED}"), malformed=True),
    _inside("a list in Host", _head(_LINE, f"Host: {places.ALLOWED}, {places.DENIED}"), malformed=True),
    _inside(
        "absolute-form to another name",
        _head(f"GET https://{places.DENIED}/{{token}} HTTP/1.1", f"Host: {places.ALLOWED}"),
    ),
    _inside(
        "absolute-form of the right name, and another Host",
        _head(f"GET https://{places.ALLOWED}/{{token}} HTTP/1.1", f"Host: {places.DENIED}"),
    ),
    Vector(
        id="CONNECT inside of TLS",
        probe="requests.tls",
        arguments=(
            *(places.ALLOWED, 443, places.ALLOWED),
            _head(f"CONNECT {places.DENIED}:443 HTTP/1.1", f"Host: {places.DENIED}:443", "X-Data: {token}"),
        ),
        expected=("400 malformed_request, intercepted",),
        event="request_denied malformed_request",
    ),
    Vector(
        id="CONNECT to a redirected port 80",
        probe="requests.plain",
        arguments=(
            *(places.ALLOWED, 80),
            _head(f"CONNECT {places.DENIED}:443 HTTP/1.1", f"Host: {places.DENIED}:443", "X-Data: {token}"),
        ),
        expected=("400 malformed_request",),
        event="request_denied malformed_request",
    ),
    _plain("plain HTTP to a denied name", _head(_LINE, f"Host: {places.DENIED}"), DENIED, places.DENIED),
    _plain("plain HTTP: another Host", _head(_LINE, f"Host: {places.DENIED}"), MISMATCH),
    _plain(
        "plain HTTP to a denied name: an allowed Host", _head(_LINE, f"Host: {places.ALLOWED}"), MISMATCH, places.DENIED
    ),
    _plain("plain HTTP to an address: an allowed Host", _head(_LINE, f"Host: {places.ALLOWED}"), MISMATCH, places.V6),
    _plain(
        "plain HTTP: absolute-form to another name",
        _head(f"GET http://{places.DENIED}/{{token}} HTTP/1.1", f"Host: {places.ALLOWED}"),
        MISMATCH,
    ),
    Vector(
        id="plain HTTP: absolute-form of https",
        probe="requests.plain",
        arguments=(
            places.ALLOWED,
            80,
            _head(f"GET https://{places.DENIED}/{{token}} HTTP/1.1", f"Host: {places.DENIED}"),
        ),
        expected=MISMATCH,
        event="request_denied identity_mismatch",
    ),
    _plain("HTTP/1.0 without Host, to a denied name", _head("GET /{token} HTTP/1.0"), DENIED, places.DENIED),
    _plain("HTTP/1.0 with another Host", _head("GET /{token} HTTP/1.0", f"Host: {places.DENIED}"), MISMATCH),
    _plain("HTTP/1.1 without Host", _head(_LINE), MALFORMED),
    _plain(
        "WebSocket to a denied name",
        _head(
            *(_LINE, f"Host: {places.DENIED}", "Connection: Upgrade", "Upgrade: websocket"),
            *("Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="),
        ),
        DENIED,
        places.DENIED,
    ),
    _plain(
        "an upgrade to HTTP/2 (h2c) at a denied name",
        _head(
            *(_LINE, f"Host: {places.DENIED}", "Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c"),
            "HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA",
        ),
        DENIED,
        places.DENIED,
    ),
    Vector(
        id="HTTP/2 without TLS (prior knowledge)",
        probe="requests.prior_knowledge",
        arguments=(places.ALLOWED, places.DENIED),
        expected=("closed",),
        event="connection_denied",
    ),
    Vector(
        id="two requests in one write, the second to another host",
        probe="requests.pipelined",
        arguments=(places.ALLOWED, 80, _OK, _head(_LINE, f"Host: {places.DENIED}")),
        expected=MISMATCH,
        event="request_denied identity_mismatch",
    ),
    _stream(
        "HTTP/2: another :authority",
        (places.DENIED, []),
        expected=MISMATCH,
        event="request_denied identity_mismatch",
    ),
    _stream(
        "HTTP/2: another :authority on a later stream",
        (places.ALLOWED, []),
        (places.DENIED, []),
        expected=MISMATCH,
        event="request_denied identity_mismatch",
    ),
    _stream(
        "HTTP/2: another Host beside :authority",
        (places.ALLOWED, [("host", places.DENIED)]),
        expected=MISMATCH,
        event="request_denied identity_mismatch",
    ),
    _stream(
        "HTTP/2: Host alone, of another name",
        ("", [("host", places.DENIED)]),
        expected=MISMATCH,
        event="request_denied identity_mismatch",
    ),
    Vector(
        id="X-Forwarded-Host of another name",
        probe="requests.plain",
        arguments=(places.DENIED, 80, _head(_LINE, f"Host: {places.DENIED}", f"X-Forwarded-Host: {places.ALLOWED}")),
        expected=DENIED,
        event="request_denied default_deny",
    ),
    Vector(
        id="a redirect from an allowed host to a denied one",
        probe="requests.follow",
        arguments=(places.ALLOWED,),
        expected=DENIED,
        event="request_denied default_deny",
    ),
    Vector(
        id="an answer that leads to HTTP/3 (Alt-Svc)",
        probe="requests.alternative",
        arguments=(places.ALLOWED,),
        expected=("no alt-svc",),
        through='h3=":443"',
        event="request_closed",
        arrives=True,
    ),
)
