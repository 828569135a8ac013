"""A policy and a CA with name constraints: the constraints that fit a policy, and the policy that fits a CA."""

from collections.abc import Iterable, Iterator
from ipaddress import IPv4Network, IPv6Network, collapse_addresses

from cryptography import x509

from sidecar.builtin import TRUST_HOST
from sidecar.hosts import Host
from sidecar.pki.constraints import Constraints, IPNetwork, Subtree, Subtrees, constraints_of
from sidecar.pki.session_ca import SessionCa
from sidecar.policy import HostPattern, Policy, PolicyError, Position, Problem, Protocol, Rule, Verdict

MAX_SIZE = 8 * 1024  # bytes of constraints: each handshake sends them, and Java reads 32 KiB of it at most

_EVERY_ADDRESS: tuple[IPNetwork, ...] = (IPv4Network("0.0.0.0/0"), IPv6Network("::/0"))


def constraints_for(policy: Policy) -> x509.NameConstraints:
    """
    The constraints under which a CA can answer for what *policy* allows, and for little else.

    A domain stands for itself and everything below it, so that ``api.example.com`` permits names below it, too, and
    ``*.example.com`` becomes ``example.com``. What passes through is never answered for, and isn't permitted. Addresses
    are excluded, unless some are allowed.

    Raises:
        PolicyError: The default is ``allow``, a pattern doesn't end in a domain, or there are too many.

    RFC 5280, section 4.2.1.10.
    """
    problems = []
    if policy.default is Verdict.ALLOW:
        problems.append(
            _default("'allow' can't be written as name constraints; write 'deny', and name what is allowed")
        )
    domains, networks = {TRUST_HOST}, set[IPNetwork]()
    for rule, number, pattern in _answered(policy):
        if pattern.network is not None:
            networks.add(pattern.network)
        elif pattern.suffix:
            domains.add(".".join(pattern.suffix))
        else:
            text = f"{pattern.text!r} can't be written as a name constraint; end it with a domain"
            problems.append(_problem(rule, number, text))
    if problems:
        raise PolicyError(policy.source, tuple(problems))
    permitted = Subtrees(tuple(_outermost(domains)), _collapsed(networks))
    excluded = (every for every in _EVERY_ADDRESS if all(every.version != each.version for each in networks))
    constraints = x509.NameConstraints(
        [*map(x509.DNSName, permitted.domains), *map(x509.IPAddress, permitted.networks)],
        [x509.IPAddress(network) for network in excluded] or None,
    )
    if (size := len(constraints.public_bytes())) > MAX_SIZE:
        text = f"its hosts make name constraints of {size} bytes, and clients read {MAX_SIZE}; name domains instead"
        raise PolicyError(policy.source, (Problem(Position(1, 1), ("rules",), text),))
    return constraints


def check_coverage(policy: Policy, ca: SessionCa) -> tuple[Problem, ...]:
    """
    Check that *ca* can answer for what *policy* allows.

    Returns:
        Warnings: what the CA excludes from an allowed domain. Where constraints hold a ``*``, all that they don't
        permit, too: their author meant something else, and hardly any policy would be left.

    Raises:
        PolicyError: The policy allows what no client would accept a leaf for.
    """
    known = constraints_of(ca.certificates)
    refused = tuple(_refused(policy, known))
    if refused and not any(constraints.have_stars for constraints in known):
        raise PolicyError(policy.source, refused)
    return (*refused, *_exempt(policy, known))


def _refused(policy: Policy, known: tuple[Constraints, ...]) -> Iterator[Problem]:
    if policy.default is Verdict.ALLOW and (why := _first(each.refusal_of_all("") for each in known)):
        yield _default(f"{why}; write 'deny', and name what is allowed")
    for rule, number, pattern in _answered(policy):
        wanted = _wanted(pattern)
        why = _first(
            each.refusal(wanted) if isinstance(wanted, Host) else each.refusal_of_all(wanted) for each in known
        )
        if why:
            fix = "take it out, let it pass through, or make a CA for this policy (bootstrap --force --constrain-to)"
            yield _problem(rule, number, f"{pattern.text!r} can't be answered for: {why}; {fix}")


def _exempt(policy: Policy, known: tuple[Constraints, ...]) -> Iterator[Problem]:
    for rule, number, pattern in _answered(policy):
        wanted = _wanted(pattern)
        for constraints in known:
            inside = None if isinstance(wanted, Host) else constraints.excluded.reach_into(wanted)
            if inside is not None:
                text = f"{pattern.text!r} holds {inside}, which the name constraints of {constraints.subject} exclude"
                yield _problem(rule, number, f"{text}; deny it before, so that its users are told")


def _answered(policy: Policy) -> Iterator[tuple[Rule, int, HostPattern]]:
    """The patterns for whose hosts leaves are needed: allowed ones, and those that pass through only if unopened."""
    narrowed: list[HostPattern] = []
    for rule in policy.rules:
        if rule.verdict is Verdict.DENY:
            narrowed += rule.patterns if rule.narrowed else ()
        elif rule.protocol is Protocol.HTTP:
            for number, pattern in enumerate(rule.patterns):
                if rule.verdict is Verdict.ALLOW or any(
                    each.covers(pattern) or pattern.covers(each) for each in narrowed
                ):
                    yield rule, number, pattern


def _wanted(pattern: HostPattern) -> Host | Subtree:
    if pattern.network is not None:
        return pattern.network
    return Host(".".join(pattern.labels)) if pattern.exact else ".".join(pattern.suffix)


def _outermost(domains: set[str]) -> list[str]:
    kept = dict[str, None]()
    for domain in sorted(domains, key=lambda domain: (domain.count("."), domain)):
        labels = domain.split(".")
        if not any(".".join(labels[i:]) in kept for i in range(len(labels))):
            kept[domain] = None
    return list(kept)


def _collapsed(networks: set[IPNetwork]) -> tuple[IPNetwork, ...]:
    v4 = [network for network in networks if isinstance(network, IPv4Network)]
    v6 = [network for network in networks if isinstance(network, IPv6Network)]
    return (*collapse_addresses(v4), *collapse_addresses(v6))


def _first(texts: Iterable[str | None]) -> str | None:
    return next((text for text in texts if text is not None), None)


def _default(text: str) -> Problem:
    return Problem(Position(1, 1), ("default",), text)


def _problem(rule: Rule, number: int, text: str) -> Problem:
    return Problem(rule.pattern_positions[number], ("rules", rule.index, rule.verdict.value, number), text)
