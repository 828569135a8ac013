"""Host patterns: names with wildcards for whole labels, IP addresses, networks."""

import re
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_network

from sidecar.errors import SidecarError
from sidecar.hosts import Host, HostError, parse_authority, parse_host
from sidecar.policy.globs import MANY, ONE, glob_matches, globs_overlap

type IPNetwork = IPv4Network | IPv6Network

# What UTS 46 maps to a dot; split here, so that a wildcard's place is known before the name is encoded.
_DOTS = re.compile("[.\u3002\uff0e\uff61]")
_CIDR = re.compile(r"[0-9a-fA-F:.]+/[0-9]{1,3}\Z")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


class PatternError(SidecarError):
    """The text is no host pattern. Says what to write instead."""


@dataclass(frozen=True, slots=True)
class HostPattern:
    """
    Which hosts: either ``labels`` (a name pattern) or ``network`` (an address is a network of one).

    A name pattern never matches an address, a network never matches a name.
    """

    text: str  # as it was written
    labels: tuple[str, ...] = ()
    network: IPNetwork | None = None

    @property
    def exact(self) -> bool:
        """One name or one address."""
        if self.network is not None:
            return self.network.num_addresses == 1
        return ONE not in self.labels and MANY not in self.labels

    @property
    def suffix(self) -> tuple[str, ...]:
        """The labels behind the last wildcard: ``("example", "com")`` of ``api.*.example.com``."""
        at = max((i for i, label in enumerate(self.labels) if label in (ONE, MANY)), default=-1)
        return self.labels[at + 1 :]

    def matches(self, host: Host) -> bool:
        if host.address is not None:
            return self.network is not None and host.address in self.network
        return bool(self.labels) and glob_matches(self.labels, host.name.split("."), least=1)

    def covers(self, other: "HostPattern") -> bool:
        """Whether every host of *other* is one of this pattern's. May miss some twisted pairs (``*.**``, ``**.*``)."""
        if self.network is not None and other.network is not None:
            same = self.network.version == other.network.version
            return same and other.network.subnet_of(self.network)  # type: ignore[arg-type]  # versions are the same
        return bool(self.labels and other.labels) and glob_matches(self.labels, other.labels, least=1)

    def overlaps(self, other: "HostPattern") -> bool:
        """Whether there is a host of both."""
        if self.network is not None and other.network is not None:
            return self.network.overlaps(other.network)
        return bool(self.labels and other.labels) and globs_overlap(self.labels, other.labels)


def parse_pattern(text: str) -> HostPattern:
    """
    Parse a host pattern and normalise it as `sidecar.hosts.parse_host` does a host.

    Args:
        text: A name in which ``*`` stands for exactly one whole label and ``**`` for one or more; an IP
            address; a network in CIDR notation, without host bits.

    Raises:
        PatternError: Anything else: a URL, a port, a path, a wildcard for a part of a label, host bits.
    """
    if not text.strip():
        raise PatternError(f"{text!r} is not a host pattern; write a host, such as 'api.example.com', or leave it out")
    if text != text.strip():
        raise PatternError(f"{text!r} has white space around it; write {text.strip()!r}")
    if scheme := _SCHEME.match(text):
        raise PatternError(_without_url(text, text[scheme.end() :]))
    if _CIDR.match(text):
        return _parse_network(text)
    if "/" in text:
        raise PatternError(_without_url(text, text))
    if "*" not in text:
        return _parse_literal(text)
    return _parse_wildcards(text)


def _without_url(text: str, rest: str) -> str:
    host, slash, path = rest.partition("/")
    kind = "a URL" if rest != text else "a host with a path"
    also = f", and paths: ['/{path.partition('?')[0]}']" if path else ""
    if not slash and not host:
        return f"{text!r} is not a host pattern; write the host alone, such as 'api.example.com'"
    name, _, port = host.rpartition(":")
    if name and port.isdecimal():
        host, also = name, f"{also}, and ports: [{port}]"
    return f"{text!r} is {kind}, not a host pattern; write {host!r}{also}"


def _parse_network(text: str) -> HostPattern:
    try:
        return HostPattern(text, network=ip_network(text))
    except ValueError:
        pass
    try:
        network = ip_network(text, strict=False)
    except ValueError:
        raise PatternError(f"{text!r} is not a network; write one such as '10.0.0.0/8' or 'fd00::/8'") from None
    address = text.partition("/")[0]
    raise PatternError(
        f"{text!r} has bits set behind the prefix; write '{network}' for the network or '{address}' for the one address"
    )


def _parse_literal(text: str) -> HostPattern:
    try:
        host = parse_host(text)
    except HostError as e:
        raise PatternError(_correction(text) or str(e)) from None
    if host.address is not None:
        return HostPattern(text, network=ip_network(host.address))
    return HostPattern(text, labels=tuple(host.name.split(".")))


def _correction(text: str) -> str | None:
    """What to write instead of *text*, where its writer's mind can be read."""
    try:
        authority = parse_authority(text)
    except HostError:
        authority = None
    if authority is not None and authority.port is not None:
        return f"{text!r} has a port; write '{authority.host}' here and ports: [{authority.port}] beside it"
    rest = text.lstrip(".")
    if rest and rest != text:
        return f"{text!r} is not a host pattern; write '*.{rest}' for one label or '**.{rest}' for one or more"
    if "@" in text:
        return f"{text!r} has user information; write {text.rpartition('@')[2]!r}"
    if "" in _DOTS.split(text.rstrip(".")):
        return f"{text!r} has an empty label; write one dot between two labels"
    return None


def _parse_wildcards(text: str) -> HostPattern:
    name, colon, port = text.rpartition(":")
    if colon and port.isdecimal():
        raise PatternError(f"{text!r} has a port; write {name!r} here and ports: [{port}] beside it")
    labels = _DOTS.split(text)
    if labels[-1] == "":
        labels.pop()
    for i, label in enumerate(labels):
        if "*" in label and label not in (ONE, MANY):
            raise PatternError(f"{text!r} is not a host pattern; write {_whole_labels(labels, i)}")
    if "" in labels:
        raise PatternError(f"{text!r} has an empty label; write one dot between two labels")
    numbers = [label for label in labels if label.isdecimal()]
    if len(labels) <= 4 and numbers and all(label in (ONE, MANY) or label.isdecimal() for label in labels):
        leading = labels[: next(i for i, label in enumerate(labels) if "*" in label)]
        network = f"{'.'.join([*leading, '0', '0', '0', '0'][:4])}/{8 * len(leading)}"
        raise PatternError(f"{text!r}: wildcards match names, never addresses; write a network, such as '{network}'")
    # A name with a letter for each wildcard is encoded in its place: wildcards are outside of what IDNA knows.
    stand_in = ".".join("x" if label in (ONE, MANY) else label for label in labels)
    try:
        encoded = parse_host(stand_in).name.split(".")
    except HostError:
        raise PatternError(f"{text!r} is not a host pattern: without its wildcards it is no host name") from None
    return HostPattern(
        text,
        labels=tuple(label if label in (ONE, MANY) else normal for label, normal in zip(labels, encoded, strict=True)),
    )


def _whole_labels(labels: list[str], at: int) -> str:
    label = labels[at]
    stars = "**" if label.startswith("**") else "*"
    rest = label.lstrip("*")
    after = labels[at + 1 :]
    if not rest:
        return repr(".".join([*labels[:at], MANY, *after]))
    if "*" not in rest and not rest.startswith("-"):
        apart = ".".join([*labels[:at], stars, rest, *after])
        return f"{'.'.join([*labels[:at], rest, *after])!r} or {apart!r}"
    return f"{'.'.join([*labels[:at], ONE, *after])!r} ('*' stands for a whole label), or name the hosts one by one"
