"""One DNS question judged: a value in, an outcome out. Nothing is asked, assigned or counted here."""

from dataclasses import dataclass
from enum import IntEnum
from ipaddress import IPv4Address, IPv6Address
from typing import Protocol

from sidecar.builtin import TRUST_HOST
from sidecar.hosts import Host, HostError, IPAddress, parse_host
from sidecar.names.outcomes import (
    AskUpstream,
    DnsReason,
    Empty,
    IfExists,
    Keep,
    Loopback,
    Minimal,
    NxDomain,
    Outcome,
    Refuse,
    Reverse,
    Synthesize,
)
from sidecar.names.records import ADDRESS_TYPES, IN, META_TYPES, Question, Type
from sidecar.names.search import is_local, lies_in

# Names that no resolver may take elsewhere (RFC 6761, section 6.4; RFC 7686), and the name by whose absence a
# network tells browsers that its resolver matters, so that they don't go around it by DNS over HTTPS.
_NOWHERE = ("invalid", "onion", "use-application-dns.net")


class Naming(IntEnum):
    """How a policy's rules name a host that only the pod's own network knows."""

    NO = 0  # by no pattern, or only by one that names any host, as "**"
    SUFFIX = 1  # by a pattern whose literal suffix lies in a search domain, as "*.default.svc.cluster.local"
    EXACT = 2  # by a pattern without wildcard


class NameRules(Protocol):
    """What the resolver asks of a policy: one whole value, so that a reload never splits a question."""

    def allows(self, host: Host) -> bool:
        """Could any rule allow anything for *host*, on any port?"""

    def real(self, host: Host) -> bool:
        """Is *host* answered truthfully: ``network.dns: real``, or ``dns: real`` on the rule?"""

    def types(self, host: Host) -> frozenset[int]:
        """Record types beside A and AAAA that rules allow for *host*."""

    def naming(self, host: Host, search: tuple[str, ...]) -> Naming:
        """How rules, allowing and denying ones, name *host*; only patterns with a suffix in *search* or exact ones."""


@dataclass(frozen=True, slots=True)
class Zone:
    """What the pod is like."""

    search: tuple[str, ...] = ()  # normalised: `search_domains`
    families: frozenset[int] = frozenset({4, 6})  # IP versions that the pod has
    ttl_s: int = 60  # of what we answer ourselves
    longest_ttl_s: int = 3600  # of what we pass on


def judge_question(question: Question, rules: NameRules, zone: Zone) -> Outcome:
    """
    Decide what becomes of *question*.

    An outside name gets a synthetic address, whatever the policy says of it: connecting to it is what brings the
    403 with its reason, and no query leaves the pod. The truth is asked for only where the policy allows the name
    and says so. Names that a search list makes don't exist, unless a rule names them.
    """
    if question.class_ != IN:
        return Refuse(DnsReason.CLASS)
    if question.type in META_TYPES:
        return Refuse(DnsReason.TYPE)
    if question.name in ("", "."):
        return Empty()
    try:
        host = parse_host(question.name)
    except HostError:
        return Refuse(DnsReason.MALFORMED)
    if host.is_address:
        return NxDomain()
    if lies_in(host.name, "localhost"):
        return Loopback() if question.type in ADDRESS_TYPES else Empty()
    if host.name == TRUST_HOST:  # also where a search domain is a part of it
        if question.type not in ADDRESS_TYPES:
            return _judge_other_type(question.type)
        return Synthesize(host) if ADDRESS_TYPES[question.type] in zone.families else Empty()
    if any(lies_in(host.name, nowhere) for nowhere in _NOWHERE):
        return NxDomain()
    allowed = rules.allows(host)
    typed = allowed and question.type not in ADDRESS_TYPES and question.type in rules.types(host)
    if lies_in(host.name, "arpa"):
        return AskUpstream(host, _keep(question.type)) if typed else _judge_arpa(host, question.type)
    local = is_local(host.name, zone.search)
    naming = rules.naming(host, zone.search) if local else Naming.EXACT
    # A denied name under a wildcard may be any outside name's expansion: to answer it would swallow that name.
    if naming is Naming.NO or (naming is Naming.SUFFIX and not allowed):
        return NxDomain()
    if question.type not in ADDRESS_TYPES:
        return AskUpstream(host, _keep(question.type)) if typed else _judge_other_type(question.type)
    missing = ADDRESS_TYPES[question.type] not in zone.families
    if allowed and rules.real(host):
        return Empty() if missing and not local else AskUpstream(host, Keep.ADDRESSES)
    if local and allowed:
        return IfExists(host)  # also where the family is missing: NXDOMAIN must not become "no such record"
    return Empty() if missing else Synthesize(host)


def _keep(type_: int) -> Keep:
    return Keep.SERVICES if type_ in (Type.HTTPS, Type.SVCB) else Keep.RECORDS


def _judge_other_type(type_: int) -> Outcome:
    if type_ == Type.ANY:
        return Minimal()
    # Every browser asks for HTTPS beside each A: an event for each would say nothing.
    return Empty() if type_ in (Type.HTTPS, Type.SVCB) else Empty(DnsReason.TYPE)


def _judge_arpa(host: Host, type_: int) -> Outcome:
    address = reverse_address(host.name)
    if type_ == Type.PTR and address is not None:
        return Reverse(address)
    return Empty() if lies_in(host.name, "resolver.arpa") else NxDomain()


def reverse_address(name: str) -> IPAddress | None:
    """The address that ``….in-addr.arpa`` or ``….ip6.arpa`` stands for (RFC 1035, section 3.5; RFC 3596, 2.5)."""
    labels = name.split(".")
    match labels[-2:]:
        case ["in-addr", "arpa"] if len(labels) == 6:
            try:
                return IPv4Address(".".join(reversed(labels[:4])))
            except ValueError:
                return None
        case ["ip6", "arpa"] if len(labels) == 34:
            try:
                return IPv6Address(bytes.fromhex("".join(reversed(labels[:32]))))
            except ValueError:
                return None
    return None
