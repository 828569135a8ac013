"""A policy as it is asked: compiled, frozen, right by construction. `sidecar.policy.load` makes it from YAML."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from sidecar.hosts import Host
from sidecar.policy.index import Index
from sidecar.policy.paths import PathPattern, Reading
from sidecar.policy.patterns import HostPattern, IPNetwork
from sidecar.policy.problems import Position
from sidecar.policy.upstreams import Upstream
from sidecar.reasons import Reason

type PortRange = tuple[int, int]  # first and last, both included

WEB_PORTS: tuple[PortRange, ...] = ((80, 80), (443, 443))
EVERY_PORT: tuple[PortRange, ...] = ((1, 65535),)


class Verdict(StrEnum):
    """What is done with a destination: intercepted and let through, refused, or forwarded unopened."""

    ALLOW = "allow"
    DENY = "deny"
    PASSTHROUGH = "passthrough"


class Protocol(StrEnum):
    """What a rule is about: HTTP requests (in TLS or not), or whatever bytes."""

    HTTP = "http"
    TCP = "tcp"


class Dns(StrEnum):
    """How names are answered: with an address of the sidecar's own, or with theirs."""

    SYNTHETIC = "synthetic"
    REAL = "real"


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule. Empty ``methods`` and ``paths`` don't narrow."""

    index: int  # from 0, as in `rules[0]`
    name: str | None
    verdict: Verdict
    patterns: tuple[HostPattern, ...]
    ports: tuple[PortRange, ...]
    methods: frozenset[str]
    paths: tuple[PathPattern, ...]
    protocol: Protocol
    dns: Dns | None  # None: as the policy has it
    dns_types: frozenset[int]  # numbers of the record types that are answered beside A and AAAA
    position: Position
    pattern_positions: tuple[Position, ...]  # as many as there are patterns

    @property
    def label(self) -> str:
        """How the rule is called in events, problems and explanations: ``rules[1] 'github-read'``."""
        return f"rules[{self.index}]" if self.name is None else f"rules[{self.index}] {self.name!r}"

    @property
    def hosts(self) -> tuple[str, ...]:
        """The patterns as they were written."""
        return tuple(pattern.text for pattern in self.patterns)

    @property
    def narrowed(self) -> bool:
        """Whether the host and port alone don't tell if the rule applies."""
        return bool(self.methods or self.paths)

    def takes_host(self, host: Host) -> bool:
        """The slow way, for explanations; `Policy.rules_for` has an index."""
        return any(pattern.matches(spelling) for spelling in spellings(host, self.verdict) for pattern in self.patterns)

    def takes_port(self, port: int) -> bool:
        return any(first <= port <= last for first, last in self.ports)

    def takes_method(self, method: str) -> bool:
        """Methods are case-sensitive (RFC 9110, section 9.1), but servers forgive: a denied one is so in any case."""
        return not self.methods or (method.upper() if self.verdict is Verdict.DENY else method) in self.methods

    def takes_path(self, readings: tuple[Reading, ...]) -> bool:
        """A denial needs one reading of the path that matches; all else needs every reading to match."""
        if not self.paths:
            return True
        matched = (any(pattern.matches(reading) for pattern in self.paths) for reading in readings)
        if self.verdict is Verdict.DENY:
            return not readings or any(matched)
        return bool(readings) and all(matched)


@dataclass(frozen=True, slots=True)
class Network:
    """What isn't about one rule."""

    allow_addresses: tuple[IPNetwork, ...] = ()  # exceptions to the guard against private addresses
    dns: Dns = Dns.SYNTHETIC


@dataclass(frozen=True, slots=True)
class Policy:
    """Ordered rules, of which the first that matches decides; and what holds where none does."""

    rules: tuple[Rule, ...]
    default: Verdict  # ALLOW or DENY
    network: Network
    hash: str  # first 16 hex digits of the text's SHA-256
    source: str
    index: Index = field(compare=False, repr=False)
    upstreams: tuple[Upstream, ...] = ()  # of those that name a host, the first counts
    generation: int = 0  # counted from 1 by whoever puts policies in force; 0: not in force

    def rules_for(self, host: Host, port: int) -> Iterator[Rule]:
        """The rules for a host and port, in their order, whatever else narrows them."""
        for i in self._indexes(host):
            rule = self.rules[i]
            if rule.takes_port(port):
                yield rule

    def _indexes(self, host: Host) -> Sequence[int]:
        if host.address is None:
            return self.index.of_name(host.name)
        found = self.index.of_address(host.address)
        for spelling in spellings(host, Verdict.DENY)[1:]:
            assert spelling.address is not None
            denials = (i for i in self.index.of_address(spelling.address) if self.rules[i].verdict is Verdict.DENY)
            found = sorted({*found, *denials})
        return found


def spellings(host: Host, verdict: Verdict) -> tuple[Host, ...]:
    """
    *host*, and for a denial what else the same packets reach: ``::ffff:192.0.2.1`` is dialled as 192.0.2.1.

    RFC 4291, section 2.5.5.2.
    """
    mapped = getattr(host.address, "ipv4_mapped", None) if verdict is Verdict.DENY else None
    return (host,) if mapped is None else (host, Host(str(mapped), mapped))


@dataclass(frozen=True, slots=True)
class Decision:
    """A verdict and its reason."""

    verdict: Verdict
    reason: Reason
    host: Host
    port: int
    rule: Rule | None = None  # None: the default decided

    @property
    def allowed(self) -> bool:
        return self.verdict is not Verdict.DENY
