"""What can become of one DNS question, before anything is looked up or handed out."""

from dataclasses import dataclass
from enum import StrEnum

from sidecar.hosts import Host, IPAddress


class DnsReason(StrEnum):
    """Why a question was refused or left unanswered: the reasons of ``dns_denied``."""

    CLASS = "dns_class"  # not the Internet's
    TYPE = "dns_type"  # no rule allows this record type for this name
    MALFORMED = "dns_malformed"  # the name is no host name
    MANY_NAMES = "dns_many_names"  # more names under one suffix than hosts have
    LONG_NAME = "dns_long_name"  # … most of them long
    RANDOM_NAME = "dns_random_name"  # … most of them random
    RANGE_FULL = "dns_range_full"  # no synthetic address is left
    OVERLOAD = "overload"  # as many questions as may be wait for a resolver
    INTERNAL_ERROR = "internal_error"


class Keep(StrEnum):
    """What is kept of an upstream's answer."""

    ADDRESSES = "addresses"  # the addresses at the end of the chain of aliases, and remember them
    RECORDS = "records"  # records of the asked-for type, and the aliases before them
    SERVICES = "services"  # the same, without what would lead around the sidecar: ech, h3, address hints


@dataclass(frozen=True, slots=True)
class Synthesize:
    """Give the name a synthetic address."""

    host: Host


@dataclass(frozen=True, slots=True)
class IfExists:
    """Ask whether the name has an address, and only then give it a synthetic one."""

    host: Host


@dataclass(frozen=True, slots=True)
class AskUpstream:
    """Ask, and pass on the truth."""

    host: Host
    keep: Keep


@dataclass(frozen=True, slots=True)
class Reverse:
    """Say which name the address was handed out for, if it was."""

    address: IPAddress


@dataclass(frozen=True, slots=True)
class Loopback:
    """The name is this very machine's (RFC 6761, section 6.3)."""


@dataclass(frozen=True, slots=True)
class Minimal:
    """The name may exist, and that's all there is to say to ANY (RFC 8482, section 4.2)."""


@dataclass(frozen=True, slots=True)
class Empty:
    """The name may exist, but has no such record; with a reason, that is worth an event."""

    reason: DnsReason | None = None


@dataclass(frozen=True, slots=True)
class NxDomain:
    """There is no such name."""


@dataclass(frozen=True, slots=True)
class Refuse:
    """REFUSED, and an event."""

    reason: DnsReason


type Outcome = Synthesize | IfExists | AskUpstream | Reverse | Loopback | Minimal | Empty | NxDomain | Refuse
