"""The explicit proxy as a way to what the workload can't reach, and allowed names that lead there."""

from tests.live.bypass import places
from tests.live.bypass.vector import CLOSED, DENIED, MALFORMED, Vector
from tests.live.pod import POD_V4

_PORT = "sidecar's port"


def _connect(id: str, target: str, *, expected: tuple[str, ...] = DENIED, through: str | None = None) -> Vector:
    """CONNECT, then a request to the same."""
    text = f"GET /{{token}} HTTP/1.1\r\nHost: {target}\r\n\r\n"
    reason = expected[0].partition(" ")[2]
    return Vector(
        id=id,
        probe="requests.through_proxy",
        arguments=(target, text),
        expected=expected,
        event="connection_denied malformed_request" if expected == MALFORMED else f"request_denied {reason}",
        through=through,
    )


def _get(id: str, authority: str, expected: tuple[str, ...] = DENIED, *, through: str | None = None) -> Vector:
    text = f"GET http://{authority}/{{token}} HTTP/1.1\r\nHost: {authority}\r\n\r\n"
    return Vector(
        id=id,
        probe="requests.plain",
        arguments=("127.0.0.1", 14101, text),
        expected=expected,
        event=f"request_denied {expected[0].partition(' ')[2]}",
        through=through,
    )


def _leads(name: str, address: str) -> Vector:
    """An allowed name whose owner has chosen such an address."""
    own = address in ("127.0.0.1", "::1", "0.0.0.0", str(POD_V4))
    port = 14102 if own else 80
    return Vector(
        id=f"an allowed name that leads to {address}" + (", at the control port" if own else ""),
        probe="requests.plain",
        arguments=(name, port, f"GET /{{token}} HTTP/1.1\r\nHost: {name}:{port}\r\n\r\n"),
        expected=("403 private_address",),
        event="request_denied private_address",
        through=_PORT if own else None,
    )


VECTORS = (
    _connect("CONNECT to an address", f"{places.V4}:80"),
    _connect("CONNECT to an IPv6 address", f"[{places.V6}]:80"),
    _connect("CONNECT to a denied name", f"{places.DENIED}:80"),
    _connect("CONNECT to a private address", f"{places.PRIVATE_V4}:80"),
    _connect("CONNECT to the metadata service", f"{places.METADATA_V4}:80"),
    _connect("CONNECT to the metadata service by IPv6", f"[{places.METADATA_V6}]:80"),
    _connect("CONNECT to an address as a decimal number", "3405803786:80", expected=MALFORMED),
    _connect("CONNECT to an address in hexadecimal", "0xcb00710a:80", expected=MALFORMED),
    _connect("CONNECT to IPv4 mapped into IPv6", f"[::ffff:{places.V4}]:80"),
    _connect("CONNECT to a synthetic address", f"{places.UNKNOWN_SYNTHETIC_V4}:80"),
    _connect("CONNECT to the control port", "127.0.0.1:14102", through=_PORT),
    _connect("CONNECT to the control port by IPv6", "[::1]:14102", through=_PORT),
    _connect("CONNECT to the control port of localhost", "localhost:14102", through=_PORT),
    _connect("CONNECT to the control port of 0.0.0.0", "0.0.0.0:14102", through=_PORT),
    _connect("CONNECT to the control port, mapped", "[::ffff:127.0.0.1]:14102", through=_PORT),
    _connect("CONNECT to the control port, as a number", "2130706433:14102", expected=MALFORMED, through=_PORT),
    _connect("CONNECT to the control port at the pod's address", f"{POD_V4}:14102", through=_PORT),
    _connect("CONNECT to the transparent listener", "127.0.0.1:14100", through=_PORT),
    _connect("CONNECT to the resolver", "127.0.0.1:14153", through=_PORT),
    _connect("CONNECT to health", "127.0.0.1:14120", through=_PORT),
    Vector(
        id="CONNECT to the proxy itself",
        probe="requests.through_proxy",
        arguments=(
            "127.0.0.1:14101",
            f"GET http://{places.DENIED}/{{token}} HTTP/1.1\r\nHost: {places.DENIED}\r\n\r\n",
        ),
        expected=("421 identity_mismatch", *DENIED),
        event="request_denied",
    ),
    Vector(
        id="raw bytes in a CONNECT to an allowed name",
        probe="requests.through_proxy",
        arguments=(f"{places.ALLOWED}:443", "\x01\x02{token}\r\n"),
        expected=CLOSED,
        event="connection_denied not_http",
    ),
    _connect("CONNECT to another port of an allowed name", f"{places.ALLOWED}:8443"),
    Vector(
        id="CONNECT to an allowed name, then the SNI of another",
        probe="requests.tls_through_proxy",
        arguments=(f"{places.ALLOWED}:443", places.DENIED, f"GET /{{token}} HTTP/1.1\r\nHost: {places.DENIED}\r\n\r\n"),
        expected=("403 identity_mismatch",),
        event="request_denied identity_mismatch",
    ),
    Vector(
        id="CONNECT to an allowed name, then another Host",
        probe="requests.tls_through_proxy",
        arguments=(
            f"{places.ALLOWED}:443",
            places.ALLOWED,
            f"GET /{{token}} HTTP/1.1\r\nHost: {places.DENIED}\r\n\r\n",
        ),
        expected=("421 identity_mismatch",),
        event="request_denied identity_mismatch",
    ),
    _get("a request to the proxy for the metadata service", places.METADATA_V4),
    _get("a request to the proxy for a private address", f"{places.PRIVATE_V4}:80"),
    _get("a request to the proxy for a denied name", places.DENIED),
    _get("a request to the proxy for the control port", "127.0.0.1:14102", through=_PORT),
    Vector(
        id="a request to the proxy for ftp://",
        probe="requests.plain",
        arguments=(
            "127.0.0.1",
            14101,
            f"GET ftp://{places.DENIED}/{{token}} HTTP/1.1\r\nHost: {places.DENIED}\r\n\r\n",
        ),
        expected=("400 malformed_request",),
        event="connection_closed",
    ),
    *(_leads(name, address) for name, address in places.GUARDED.items()),
    Vector(
        id="a name whose second answer is private (rebinding)",
        probe="requests.rebound",
        expected=("403 private_address",),
        event="request_denied private_address",
        asks_resolver=True,
    ),
)
