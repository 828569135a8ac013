"""The values of a policy's keys as pydantic sees them: hosts, ports, methods, names, files."""

import re
from collections.abc import Callable
from typing import Annotated

from pydantic import BaseModel, ConfigDict, PlainValidator

from sidecar.errors import SidecarError
from sidecar.policy.paths import PathPattern, parse_path
from sidecar.policy.patterns import HostPattern, IPNetwork, parse_pattern
from sidecar.policy.rules import PortRange
from sidecar.policy.upstreams import Accept

# The record types that say something about a name (IANA's registry of resource record types); none that carries a
# zone, a key or a transaction.
DNS_TYPES = {
    "NS": 2,
    "CNAME": 5,
    "SOA": 6,
    "PTR": 12,
    "MX": 15,
    "TXT": 16,
    "SRV": 33,
    "NAPTR": 35,
    "SVCB": 64,
    "HTTPS": 65,
    "CAA": 257,
}

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+\Z")  # RFC 9110, section 5.6.2
_RANGE = re.compile(r"\s*([0-9]{1,5})\s*-\s*([0-9]{1,5})\s*\Z")


def _text[T](parse: Callable[[str], T]) -> PlainValidator:
    def validate(value: object) -> T:
        if not isinstance(value, str):
            raise ValueError(f"{value!r} is not a text; write it in quotes, if it is meant")
        try:
            return parse(value)
        except SidecarError as e:
            raise ValueError(str(e)) from None

    return PlainValidator(validate)


def _ports(value: object) -> PortRange:
    if isinstance(value, int) and not isinstance(value, bool):
        first = last = value
    elif isinstance(value, str) and (match := _RANGE.match(value)):
        first, last = int(match[1]), int(match[2])
    else:
        bare = isinstance(value, str) and value.isdecimal()
        raise ValueError(f"{value!r} is not a port; write {value if bare else "443, or a range such as '8000-8100'"}")
    if not (1 <= first <= 65535 and 1 <= last <= 65535):
        raise ValueError(f"{value!r} is no port; ports are 1 to 65535")
    if first > last:
        raise ValueError(f"{value!r} holds no port; write '{last}-{first}'")
    return first, last


def _method(text: str) -> str:
    if not _TOKEN.match(text):
        raise ValueError(f"{text!r} is not a method; write one such as GET")
    if text != text.upper():
        raise ValueError(f"{text!r} is not a method, methods being case-sensitive; write {text.upper()!r}")
    return text


def _name(text: str) -> str:
    if not text.strip() or not text.isprintable() or len(text) > 128:
        raise ValueError("a name is 1 to 128 printable characters; write one such as 'github-read'")
    return text


def _dns_type(text: str) -> int:
    if text in ("A", "AAAA"):
        raise ValueError(f"{text} needs no rule; leave it out")
    if text not in DNS_TYPES:
        near = text.upper() if text.upper() in DNS_TYPES else ", ".join(sorted(DNS_TYPES))
        raise ValueError(f"{text!r} is not a record type that can be allowed; write {near}")
    return DNS_TYPES[text]


def _network(text: str) -> IPNetwork:
    pattern = parse_pattern(text)
    if pattern.network is None:
        raise ValueError(f"{text!r} is not an address or a network; write one such as '10.20.0.0/16'")
    return pattern.network


def _file(text: str) -> str:
    if not text.strip() or "\0" in text:
        raise ValueError(f"{text!r} is not a path; write one such as '/etc/egress/upstream/ca.pem'")
    return text


def _accept(text: str) -> Accept:
    try:
        return Accept(text)
    except ValueError:
        known = ", ".join(Accept)
        raise ValueError(f"{text!r} can't be accepted; what can is {known}; chain, name and validity can't") from None


Pattern = Annotated[HostPattern, _text(parse_pattern)]
Ports = Annotated[PortRange, PlainValidator(_ports)]
Method = Annotated[str, _text(_method)]
PathText = Annotated[PathPattern, _text(parse_path)]
Name = Annotated[str, _text(_name)]
DnsType = Annotated[int, _text(_dns_type)]
Address = Annotated[IPNetwork, _text(_network)]
FilePath = Annotated[str, _text(_file)]
Acceptance = Annotated[Accept, _text(_accept)]


class Document(BaseModel):
    """A mapping of the file: no keys but its own, no types but the right ones."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, arbitrary_types_allowed=True)
