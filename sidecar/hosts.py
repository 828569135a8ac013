"""
Host names, IP literals and authorities: parsed and normalised once, equal when they mean the same.

Everything that a client can claim about a destination (CONNECT authority, SNI, ``Host``, ``:authority``) and
everything that a policy names goes through here, so that two spellings of one host can never be judged apart.
"""

import re
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import AddressValueError, IPv4Address, IPv6Address

import idna

from sidecar.errors import SidecarError

type IPAddress = IPv4Address | IPv6Address

# Underscores are no host name characters (RFC 952), but names with them are served and used (RFC 2181, section 11).
_LABEL = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)\Z")
_PORT = re.compile(r"[0-9]{1,5}\Z")
# The last label of a name is never a number (RFC 3696, section 2): what looks so is an IPv4 address in one of
# inet_aton's spellings (0x7f.1, 017700000001, 2130706433), which resolvers disagree about.
_NUMBER = re.compile(r"(?:[0-9]+|0x[0-9a-f]*)\Z")


class HostError(SidecarError):
    """The text is no host name, IP literal or authority."""


@dataclass(frozen=True, slots=True)
class Host:
    """A host: a name in lower-case A-labels without trailing dot, or an IP address. Build it with `parse_host`."""

    name: str  # "api.example.com", "192.0.2.1", "2001:db8::1"
    address: IPAddress | None = None

    def __str__(self) -> str:
        return self.name

    @property
    def is_address(self) -> bool:
        return self.address is not None


@dataclass(frozen=True, slots=True)
class Authority:
    """A host and the port that was written with it; ``None`` where none was."""

    host: Host
    port: int | None = None

    def __str__(self) -> str:
        host = f"[{self.host}]" if isinstance(self.host.address, IPv6Address) else self.host.name
        return host if self.port is None else f"{host}:{self.port}"


@lru_cache(maxsize=8192)
def parse_host(text: str) -> Host:
    """
    Parse and normalise a host name or an IP literal.

    Args:
        text: A name in any case, in A-labels or U-labels, with or without a trailing dot; or an IPv4 address
            in four decimal parts; or an IPv6 address, with or without brackets.

    Raises:
        HostError: Anything else: empty labels, forbidden characters, a port, user information, a zone id,
            IPv4 in decimal, octal, hexadecimal or short form.

    Names as in RFC 1123, section 2.1, and RFC 5891 (UTS 46, non-transitional); addresses as in RFC 3986, section 3.2.2.
    """
    if text.startswith("[") or ":" in text:
        return _parse_ipv6(text)
    name = text
    if not name.isascii():
        try:
            name = idna.encode(name, uts46=True).decode("ascii")
        except (idna.IDNAError, UnicodeError) as e:
            raise HostError(f"{text!r} is not a host name: {e}") from e
    name = name.lower().removesuffix(".")
    labels = name.split(".")
    if _NUMBER.match(labels[-1]):
        try:
            address = IPv4Address(name)
        except AddressValueError:
            raise HostError(f"{text!r} is not a host: write an IPv4 address as four decimal numbers") from None
        return Host(str(address), address)
    if len(name) > 253 or not all(_LABEL.match(label) for label in labels):
        raise HostError(f"{text!r} is not a host name")
    return Host(name)


def _parse_ipv6(text: str) -> Host:
    literal = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    try:
        address = IPv6Address(literal)
    except AddressValueError:
        raise HostError(f"{text!r} is not a host: neither a name nor an IPv6 address") from None
    if address.scope_id is not None:
        raise HostError(f"{text!r} has a zone id, which names nothing outside of one machine; leave it out")
    return Host(str(address), address)


@lru_cache(maxsize=8192)
def parse_authority(text: str) -> Authority:
    """
    Parse ``host`` or ``host:port``, as in CONNECT, ``Host`` and ``:authority``.

    Raises:
        HostError: Not an authority, or one with user information; a port
            that isn't 1 to 65535.

    RFC 9110, section 7.2, and RFC 3986, section 3.2.
    """
    if "@" in text:
        raise HostError(f"{text!r} has user information in front of the host; leave it out")
    if text.count(":") > 1 and not text.startswith("["):
        # Against RFC 3986, but what clients write into Host for an address that they were given so: no port fits.
        return Authority(_parse_ipv6(text))
    if text.startswith("["):
        literal, bracket, rest = text.partition("]")
        host, port = _parse_ipv6(literal + bracket), rest
        if port and not port.startswith(":"):
            raise HostError(f"{text!r} is not an authority; write '[address]:port'")
        port = port[1:]
    else:
        name, _, port = text.partition(":")
        host = parse_host(name)
    if not port:
        return Authority(host)
    if not _PORT.match(port) or not 0 < int(port) < 65536:
        raise HostError(f"{text!r} has no valid port; write one from 1 to 65535")
    return Authority(host, int(port))
