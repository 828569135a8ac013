"""A policy as the resolver asks it: about names, without a port."""

from collections.abc import Iterator
from dataclasses import dataclass

from sidecar.hosts import Host
from sidecar.names.questions import Naming
from sidecar.names.search import lies_in
from sidecar.policy.decide import judge_name, judge_tcp
from sidecar.policy.rules import Dns, Policy, Rule, Verdict


@dataclass(frozen=True, slots=True)
class PolicyRules:
    """`NameRules` of one policy. Hosts are names, never addresses."""

    policy: Policy

    def allows(self, host: Host) -> bool:
        """Could any rule allow anything for *host*, on any port? One port of each stretch is asked for all of it."""
        return any(
            judge_name(self.policy, host, port).allowed or judge_tcp(self.policy, host, port).allowed
            for port in self._ports(host)
        )

    def real(self, host: Host) -> bool:
        """As the first rule has it that lets *host* through on any port; else as the policy has it."""
        for rule in self._rules(host):
            if rule.verdict is not Verdict.DENY:
                return (rule.dns or self.policy.network.dns) is Dns.REAL
        return self.policy.network.dns is Dns.REAL

    def types(self, host: Host) -> frozenset[int]:
        """The types of all rules that let *host* through."""
        return frozenset[int]().union(
            *(rule.dns_types for rule in self._rules(host) if rule.verdict is not Verdict.DENY)
        )

    def naming(self, host: Host, search: tuple[str, ...]) -> Naming:
        """The closest that any pattern comes to naming *host*; wildcards count with a suffix that lies in *search*."""
        best = Naming.NO
        for pattern in (pattern for rule in self._rules(host) for pattern in rule.patterns if pattern.matches(host)):
            if pattern.exact:
                return Naming.EXACT
            if any(lies_in(".".join(pattern.suffix), domain) for domain in search):
                best = Naming.SUFFIX
        return best

    def _rules(self, host: Host) -> Iterator[Rule]:
        return (self.policy.rules[i] for i in self.policy.index.of_name(host.name))

    def _ports(self, host: Host) -> set[int]:
        bounds = (bound for rule in self._rules(host) for first, last in rule.ports for bound in (first, last + 1))
        return {1, *(port for port in bounds if port < 65536)}
