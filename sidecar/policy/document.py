"""The policy's YAML as pydantic sees it, and what else must hold of one rule."""

from collections.abc import Iterator
from typing import Any, Literal

from pydantic import Field

from sidecar.policy.fields import (
    Acceptance,
    Address,
    DnsType,
    Document,
    FilePath,
    Method,
    Name,
    PathText,
    Pattern,
    Ports,
)
from sidecar.policy.patterns import HostPattern
from sidecar.policy.problems import Path
from sidecar.policy.rules import Dns, Protocol, Verdict

VERDICTS = tuple(verdict.value for verdict in Verdict)


class RuleDocument(Document):
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


class NetworkDocument(Document):
    """`network`."""

    allow_addresses: list[Address] = Field(default_factory=list)
    dns: Literal["synthetic", "real"] = Dns.SYNTHETIC.value


class ClientCertificateDocument(Document):
    """`client_certificate` of an upstream."""

    certificate: FilePath
    key: FilePath


_NO_CLIENT_CERTIFICATE = ClientCertificateDocument.model_construct(certificate="", key="")


class UpstreamDocument(Document):
    """One item of `upstreams`; a file that isn't given is an empty path."""

    hosts: list[Pattern] = Field(min_length=1)
    roots: FilePath = ""
    add_roots: FilePath = ""
    client_certificate: ClientCertificateDocument = _NO_CLIENT_CERTIFICATE
    crl: FilePath = ""
    accept: list[Acceptance] = Field(default_factory=list, min_length=1)


class PolicyDocument(Document):
    """The whole file."""

    version: Literal[1]
    default: Literal["allow", "deny"] = "deny"
    rules: list[RuleDocument] = Field(default_factory=list)
    network: NetworkDocument = Field(default_factory=NetworkDocument)
    upstreams: list[UpstreamDocument] = Field(default_factory=list)


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


def upstream_contradictions(upstreams: Any) -> Iterator[tuple[Path, str]]:
    """The same for `upstreams`."""
    for i, entry in enumerate(upstreams if isinstance(upstreams, list) else []):
        if not isinstance(entry, dict):
            continue
        if "roots" in entry and "add_roots" in entry:
            yield (
                ("upstreams", i, "add_roots"),
                "stands beside 'roots', which are trusted instead of all others; put all of them into one file",
            )
        if not set(UpstreamDocument.model_fields) - {"hosts"} & set(entry):
            yield (
                ("upstreams", i),
                "says nothing of its hosts; write roots, add_roots, client_certificate, crl or accept",
            )
