"""DNS: whichever server is asked, the sidecar answers; no question leaves the pod."""

from tests.live.bypass import places
from tests.live.bypass.vector import CLOSED, DENIED, REFUSED, Vector

_A, _CNAME, _NULL, _PTR, _MX, _TXT, _AAAA, _SRV, _HTTPS, _AXFR, _ANY = 1, 5, 10, 12, 15, 16, 28, 33, 65, 252, 255
_TUNNEL = "{token}.tunnel.example.net"
_SYNTHETIC = ("NOERROR synthetic",)
_EMPTY = ("NOERROR empty",)
_GET = "POST /dns-query HTTP/1.1\r\nHost: HOST\r\nContent-Length: 20\r\n\r\n{token}\r\n\r\n"


def _ask(id: str, kind: int, expected: tuple[str, ...], event: str | None = None, **more: object) -> Vector:
    server = str(more.pop("server", places.RESOLVER_V4))
    name = str(more.pop("name", _TUNNEL))
    arguments = (server, name, kind, *more.values())
    return Vector(id=id, probe="names.ask", arguments=arguments, expected=expected, event=event)


VECTORS = (
    _ask("a question to the cluster's resolver", _A, _SYNTHETIC),
    _ask("for IPv6", _AAAA, _SYNTHETIC),
    _ask("to another server", _A, _SYNTHETIC, server=places.V4),
    _ask("to a server by IPv6", _A, _SYNTHETIC, server=places.RESOLVER_V6),
    Vector(
        id="by TCP",
        probe="names.ask_by_tcp",
        arguments=(places.V4, _TUNNEL, _A),
        expected=_SYNTHETIC,
    ),
    Vector(
        id="by TCP and IPv6",
        probe="names.ask_by_tcp",
        arguments=(places.V6, _TUNNEL, _A),
        expected=_SYNTHETIC,
    ),
    _ask("for a name below an allowed wildcard", _A, _SYNTHETIC, name=f"{{token}}.{places.UNDER_WILDCARD}"),
    _ask("TXT", _TXT, _EMPTY, "dns_denied dns_type"),
    _ask("NULL", _NULL, _EMPTY, "dns_denied dns_type"),
    _ask("MX", _MX, _EMPTY, "dns_denied dns_type"),
    _ask("CNAME", _CNAME, _EMPTY, "dns_denied dns_type"),
    _ask("SRV", _SRV, _EMPTY, "dns_denied dns_type"),
    _ask(
        "TXT below an allowed wildcard", _TXT, _EMPTY, "dns_denied dns_type", name=f"{{token}}.{places.UNDER_WILDCARD}"
    ),
    _ask("HTTPS, where ECH keys would be", _HTTPS, _EMPTY),
    _ask("ANY", _ANY, ("NOERROR HINFO",)),
    _ask("PTR", _PTR, ("NXDOMAIN empty",), name="{token}.in-addr.arpa"),
    _ask("a zone transfer", _AXFR, ("REFUSED empty",)),
    _ask("another class (CHAOS)", _TXT, ("REFUSED empty",), class_=3),
    _ask("a dynamic update", _A, ("NOTIMP empty",), class_=1, flags=0x2800),
    _ask("two questions in one message", _A, (*_SYNTHETIC, "FORMERR empty", "timeout"), class_=1, flags=0x100, count=2),
    _ask("a message that says it is an answer", _A, ("FORMERR empty", "timeout"), class_=1, flags=0x8100),
    Vector(
        id="data behind the end of the message",
        probe="names.behind",
        arguments=(places.RESOLVER_V4,),
        expected=(*_SYNTHETIC, "FORMERR empty", "timeout", "ECONNREFUSED"),
    ),
    Vector(id="data in an EDNS option", probe="names.option", arguments=(places.RESOLVER_V4,), expected=_SYNTHETIC),
    Vector(
        id="a name as long as it may be",
        probe="names.long_labels",
        arguments=(places.RESOLVER_V4,),
        expected=(*_SYNTHETIC, "REFUSED empty", "NXDOMAIN empty"),
    ),
    Vector(
        id="a tunnel of 200 random names",
        probe="names.many",
        arguments=(places.RESOLVER_V4, 200),
        expected=(*_SYNTHETIC, "NOERROR synthetic, NXDOMAIN empty", "NOERROR synthetic, REFUSED empty"),
    ),
    Vector(
        id="no DNS at all, by UDP 53",
        probe="names.no_dns",
        arguments=(places.V4,),
        expected=("timeout", "ECONNREFUSED"),
    ),
    Vector(
        id="no DNS at all, by TCP 53",
        probe="names.no_dns_by_tcp",
        arguments=(places.V4,),
        expected=(*CLOSED, "timeout", "ECONNRESET"),
    ),
    Vector(
        id="bound to the link, by UDP 53",
        probe="datagrams.bound",
        arguments=(places.RESOLVER_V4, 53),
        expected=(*REFUSED, "timeout"),
    ),
    Vector(
        id="bound to the link, by UDP 53 and IPv6",
        probe="datagrams.bound",
        arguments=(places.RESOLVER_V6, 53),
        expected=(*REFUSED, "timeout"),
    ),
    Vector(
        id="from an address that the pod doesn't have",
        probe="datagrams.from_address",
        arguments=(places.RESOLVER_V6, 53, places.OTHER_V6, 7779),
        expected=(*REFUSED, "sent"),
    ),
    Vector(
        id="DNS over TLS",
        probe="names.over_tls",
        arguments=(places.V4,),
        expected=CLOSED,
        event="connection_denied not_http",
    ),
    Vector(
        id="DNS over HTTPS at an address",
        probe="requests.tls",
        arguments=(places.V4, 443, None, _GET.replace("HOST", places.V4)),
        expected=tuple(f"{said}, intercepted" for said in DENIED),
        event="request_denied default_deny",
    ),
    Vector(
        id="DNS over HTTPS at a name",
        probe="requests.tls",
        arguments=("dns.example.net", 443, "dns.example.net", _GET.replace("HOST", "dns.example.net")),
        expected=tuple(f"{said}, intercepted" for said in DENIED),
        event="request_denied default_deny",
    ),
    Vector(id="DNS on another port", probe="datagrams.udp", arguments=(places.V4, 5353), expected=REFUSED),
    Vector(id="DNS over QUIC", probe="datagrams.udp", arguments=(places.V4, 853), expected=REFUSED),
)
