"""A company's proxy between the sidecar and the Internet: what is asked of it, what isn't, what it answers."""

import re
from base64 import b64encode
from collections.abc import Iterable
from dataclasses import dataclass, field
from ipaddress import IPv4Address, ip_network
from typing import Literal
from urllib.parse import urlsplit

from sidecar.addresses import IPNetwork
from sidecar.errors import SidecarError
from sidecar.hosts import Authority, Host, HostError, IPAddress, parse_authority, parse_host
from sidecar.problem import Failure
from sidecar.reasons import Reason

MAX_HEAD = 64 * 1024  # bytes of an answer to CONNECT
_STATUS = re.compile(rb"HTTP/1\.[01] ([1-5][0-9]{2})(?: ([\x20-\x7e]*))?\r?\n")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_LOOPBACK = IPv4Address("127.0.0.1")


class UpstreamProxyError(SidecarError):
    """The proxy's address, its credentials or the list of exceptions can't be read. Never holds a password."""


class NotThrough(OSError):
    """The proxy didn't let a connection through; an OSError, as every failed dial."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.detail)
        self.failure = failure


@dataclass(frozen=True, slots=True)
class NoProxy:
    """
    Hosts that are dialled directly. As curl reads ``NO_PROXY``: a name stands for itself and all names below it, with
    or without a leading dot; an address or a CIDR for destinations given as addresses; ``*`` for everything.
    """

    names: frozenset[str] = frozenset()
    networks: tuple[IPNetwork, ...] = ()
    everything: bool = False

    def __contains__(self, host: Host) -> bool:
        if self.everything:
            return True
        if (address := host.address) is not None:
            return any(address.version == network.version and address in network for network in self.networks)
        labels = host.name.split(".")
        return any(".".join(labels[at:]) in self.names for at in range(len(labels)))


@dataclass(frozen=True, slots=True)
class UpstreamProxy:
    """
    Where connections go instead of to their destinations.

    Attributes:
        scheme: ``https`` if the connection to the proxy itself is TLS.
        authorization: The value of ``Proxy-Authorization``; never shown.
    """

    scheme: Literal["http", "https"]
    host: Host
    port: int
    authorization: str | None = field(default=None, repr=False)
    no_proxy: NoProxy = NoProxy()

    def __str__(self) -> str:
        return f"{self.scheme}://{Authority(self.host, self.port)}"

    def takes(self, host: Host) -> bool:
        return host not in self.no_proxy

    def connect(self, target: Authority) -> bytes:
        """The CONNECT request for *target*, which has a port (RFC 9110, section 9.3.6)."""
        lines = [f"CONNECT {target} HTTP/1.1", f"Host: {target}"]
        if self.authorization is not None:
            lines.append(f"Proxy-Authorization: {self.authorization}")
        return "\r\n".join((*lines, "", "")).encode("ascii")

    def answer(self, received: bytes, target: Authority) -> bytes | None:
        """
        Read what the proxy has sent so far.

        Returns:
            None while the head of its answer isn't complete; then what follows the head, which is the destination's.

        Raises:
            NotThrough: It refuses, or doesn't answer as a proxy does.
        """
        head, end, rest = received.partition(b"\r\n\r\n")
        if not end:
            if len(received) > MAX_HEAD:
                raise self.failed(f"answered CONNECT with more than {MAX_HEAD // 1024} KiB of headers")
            return None
        status = _STATUS.match(head + b"\r\n")
        if status is None:
            raise self.failed("doesn't answer CONNECT with HTTP; is it an HTTP proxy, and is its scheme right?")
        code, said = int(status[1]), f"{status[1].decode()} {(status[2] or b'').decode()}".strip()
        if 200 <= code < 300:
            return rest
        if code == 407:
            what = "refuses the credentials" if self.authorization else "wants credentials"
            raise self.failed(f"{what} ({said}); the operator gives them by --upstream-proxy-credentials")
        if code in (502, 503, 504):
            detail = f"{target} can't be reached through the upstream proxy {self}: it says {said}"
            raise NotThrough(Failure(Reason.UPSTREAM_UNREACHABLE, detail))
        raise self.failed(f"refuses CONNECT {target}: {said}")

    def failed(self, what: str) -> NotThrough:
        """The error that says so of this proxy."""
        return NotThrough(Failure(Reason.UPSTREAM_PROXY, f"the upstream proxy {self} {what}"))


def stands_for(host: Host) -> IPAddress | None:
    """
    The address that a destination means wherever it is resolved; None for names that only the proxy resolves.

    ``localhost`` and all below it is loopback by definition (RFC 6761, section 6.3): the proxy's own, there.
    """
    return _LOOPBACK if host.name == "localhost" or host.name.endswith(".localhost") else host.address


def parse_upstream_proxy(url: str, *, credentials: str | None = None, no_proxy: Iterable[str] = ()) -> UpstreamProxy:
    """
    Parse ``http://HOST:PORT`` or ``https://HOST:PORT``.

    Args:
        credentials: ``user:password``, as the credentials file holds it; a line end is left away.
        no_proxy: Lists of exceptions, separated by commas or spaces.

    Raises:
        UpstreamProxyError: Anything else, as user information in the URL: command lines are seen by everybody.
    """
    scheme, _, rest = url.partition("://")
    if "@" in rest:
        raise UpstreamProxyError(
            "--upstream-proxy has user information in it; leave it out, and give --upstream-proxy-credentials FILE"
        )
    wrong = UpstreamProxyError(f"--upstream-proxy {url!r} isn't a proxy's URL; write 'http://proxy.example.com:3128'")
    try:
        parts = urlsplit(url)
        authority = parse_authority(parts.netloc)
    except (HostError, ValueError):
        raise wrong from None
    if authority.port is None or parts.path not in ("", "/") or parts.query or parts.fragment:
        raise wrong
    match scheme.lower():
        case "http" | "https" as known:
            authorization = _basic(credentials) if credentials is not None else None
            return UpstreamProxy(known, authority.host, authority.port, authorization, parse_no_proxy(no_proxy))
    raise wrong


def parse_no_proxy(lists: Iterable[str]) -> NoProxy:
    """
    Parse lists of hosts, ``.suffixes``, addresses and CIDRs, separated by commas or spaces.

    Raises:
        UpstreamProxyError: An entry is none of these. Ports and wildcards inside of names are not.
    """
    names, networks, everything = set[str](), list[IPNetwork](), False
    for entry in (word for text in lists for word in text.replace(",", " ").split()):
        if entry == "*":
            everything = True
            continue
        try:
            if "/" in entry:
                networks.append(ip_network(entry, strict=False))
                continue
            host = parse_host(entry.removeprefix("."))
        except (ValueError, HostError):
            raise UpstreamProxyError(
                f"--no-proxy: {entry!r} is neither a host nor a network; write 'example.com' (and all names below it), "
                "'192.0.2.1' or '10.0.0.0/8', without a port"
            ) from None
        if host.address is not None:
            networks.append(ip_network(host.address))
        else:
            names.add(host.name)
    return NoProxy(frozenset(names), tuple(networks), everything)


def _basic(credentials: str) -> str:
    """RFC 7617, section 2."""
    text = credentials.rstrip("\r\n")
    if ":" not in text or _CONTROL.search(text):
        raise UpstreamProxyError("--upstream-proxy-credentials: the file doesn't hold one line user:password")
    return "Basic " + b64encode(text.encode()).decode("ascii")
