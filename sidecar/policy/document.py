"""The policy's YAML as pydantic sees it, and what else must hold of one rule."""

import re
from collections.abc import Callable, Iterator
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PlainValidator

from sidecar.errors import SidecarError
from sidecar.policy.paths import PathPattern, parse_path
from sidecar.policy.patterns import HostPattern, IPNetwork, parse_pattern
from sidecar.policy.problems import Path
from sidecar.policy.rules import Dns, PortRange, Protocol, Verdict

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
VERDICTS = tuple(verdict.value for verdict in Verdict)

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


Pattern = Annotated[HostPattern, _text(parse_pattern)]
Ports = Annotated[PortRange, PlainValidator(_ports)]
Method = Annotated[str, _text(_method)]
PathText = Annotated[PathPattern, _text(parse_path)]
Name = Annotated[str, _text(_name)]
DnsType = Annotated[int, _text(_dns_type)]
Address = Annotated[IPNetwork, _text(_network)]


class _Document(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, arbitrary_types_allowed=True)


class RuleDocument(_Document):
    """One item of `rules`. A key that isn't given differs from one given without a value, which is an error."""

    name: Name = ""
    allow: list[Pattern] = Field(default_factory=list, min_length=1)
    deny: list[Pattern] = Field(default_factory=list, min_length=1)
    passthrough: list[Pattern] = Field(default_factory=list, min_length=1)
    ports: list[Ports] = Field(default_factory=list, min_length=1)
    methods: list[Method] = Field(default_factory=list, min_length=1)
    paths: list[PathText] = Field(default_factory=list, min_length=1)
    protocol: Literal["http", "tcp"] = Protocol.HTTP.value
    dns: Literal["synthetic", "real", ""] = ""  # "": as the policy has it
    dns_types: list[DnsType] = Field(default_factory=list, min_length=1)
    mode: Literal["enforce"] = "enforce"

    @property
    def verdict(self) -> Verdict:
        return Verdict.ALLOW if self.allow else Verdict.DENY if self.deny else Verdict.PASSTHROUGH

    @property
    def patterns(self) -> list[HostPattern]:
        return self.allow or self.deny or self.passthrough


class NetworkDocument(_Document):
    """`network`."""

    allow_addresses: list[Address] = Field(default_factory=list)
    dns: Literal["synthetic", "real"] = Dns.SYNTHETIC.value


class PolicyDocument(_Document):
    """The whole file."""

    version: Literal[1]
    default: Literal["allow", "deny"] = "deny"
    rules: list[RuleDocument] = Field(default_factory=list)
    network: NetworkDocument = Field(default_factory=NetworkDocument)


# Keys that a rule, or the file, will have one day. Ignoring one would make a policy say less than its writer thinks.
UNSUPPORTED = {
    "decide": "is not supported yet; write 'allow' or 'deny'",
    "decider": "is not supported yet; leave it out",
    "expires": "is not supported yet; leave it out and remove the rule when its time has come",
    "credentials": "is not supported yet; leave it out",
}


def contradictions(rules: Any) -> Iterator[tuple[Path, str]]:
    """
    What is wrong between the keys of a rule, or between rules: where, and the message.

    Args:
        rules: As read from the file, valid or not, so that all problems of a file are told at once.
    """
    names: dict[str, int] = {}
    for i, rule in enumerate(rules if isinstance(rules, list) else []):
        if not isinstance(rule, dict):
            continue
        here: Path = ("rules", i)
        verdicts = [verdict for verdict in VERDICTS if verdict in rule]
        if not verdicts and "decide" not in rule:
            yield here, "says neither allow, deny nor passthrough; write one of them with a list of hosts"
        for verdict in verdicts[1:]:
            yield (*here, verdict), f"stands beside '{verdicts[0]}'; write two rules, the more important one first"
        name = rule.get("name")
        if isinstance(name, str) and names.setdefault(name, i) != i:
            yield (*here, "name"), f"{name!r} is the name of rules[{names[name]}] already; write another one"
        narrowing = [key for key in ("methods", "paths") if key in rule]
        if "dns_types" in rule and "deny" in verdicts:
            yield (
                (*here, "dns_types"),
                "allows records, and the rule denies; leave it out, or write it into an allow rule",
            )
        if "passthrough" in verdicts:
            for key in narrowing:
                yield (*here, key), "can't be seen in what is passed through unopened; write 'allow', or leave it out"
        if rule.get("protocol") == Protocol.TCP.value:
            for key in narrowing:
                yield (
                    (*here, key),
                    "belongs to HTTP, and the rule is for raw TCP; leave it out, or write protocol: http",
                )
            if "passthrough" in verdicts:
                yield (*here, "protocol"), "raw TCP is never opened; write 'allow' instead of 'passthrough'"
            elif "ports" not in rule and "deny" not in verdicts:
                yield (*here, "protocol"), "raw TCP has no usual ports; write which, such as ports: [5432]"
