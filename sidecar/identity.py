"""Do all claims about a destination name the same one? Asked before any policy, for every request."""

from dataclasses import dataclass

from sidecar.hosts import Authority, Host


@dataclass(frozen=True, slots=True)
class Claims:
    """What the client said about where it wants to go; None, or empty, where it said nothing."""

    authority: Authority | None  # CONNECT's, or the name behind the original destination, with its port
    sni: Host | None
    # Of this very request: the authority of an absolute-form target first, then :authority, then each Host header.
    hosts: tuple[Authority, ...] = ()
    # Shorter spellings of the authority's host by the pod's search domains: "web" for "web.shop.svc.cluster.local".
    aliases: frozenset[Host] = frozenset()


@dataclass(frozen=True, slots=True)
class Proven:
    """The one destination that all claims name."""

    host: Host
    port: int


@dataclass(frozen=True, slots=True)
class Mismatch:
    """The claims contradict each other, or there are none."""

    claims: Claims
    status: int  # of the answer: 421 where the request names another host than its connection, else 403
    text: str


def prove(claims: Claims, default_port: int) -> Proven | Mismatch:
    """
    Find the one destination that all claims name.

    Hosts are equal as `sidecar.hosts` normalises them; ``::ffff:192.0.2.1`` and ``192.0.2.1`` are two. A port is
    compared where it was written; the connection's, or else the first host's, is the one that counts.

    Args:
        default_port: The scheme's: 443 or 80.

    RFC 9110, sections 7.2 and 7.4 (421); RFC 9112, section 3.2.2; RFC 9113, section 8.3.1.
    """
    authority, sni = claims.authority, claims.sni
    if authority is not None and sni is not None and authority.host != sni and sni not in claims.aliases:
        return Mismatch(claims, 403, f"the connection is to {authority.host}, but its SNI is {sni}")
    if authority is not None:
        said, host, port = f"the connection is to {authority}", authority.host, authority.port
    elif sni is not None:
        said, host, port = f"the SNI is {sni}", sni, None
    elif claims.hosts:
        said, host, port = f"the request is to {claims.hosts[0]}", claims.hosts[0].host, claims.hosts[0].port
    else:
        return Mismatch(claims, 403, "neither the connection nor the request names a host")
    port = default_port if port is None else port
    for claimed in claims.hosts:
        if (claimed.host != host and claimed.host not in claims.aliases) or claimed.port not in (None, port):
            return Mismatch(claims, 421, f"{said}, but the request names {claimed}")
    return Proven(host, port)
