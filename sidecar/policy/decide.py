"""What the policy says: of a name and a port, of a whole request, of a raw connection."""

from sidecar.builtin import TRUST_HOST
from sidecar.hosts import Host
from sidecar.policy.paths import readings
from sidecar.policy.rules import Decision, Policy, Protocol, Rule, Verdict
from sidecar.reasons import Reason


def judge_name(policy: Policy, host: Host, port: int) -> Decision:
    """
    Stage one, when only name and port are known (CONNECT, SNI): what to do with the connection.

    The built-in host is denied here, and to raw TCP, whatever the rules say: so it is intercepted, and never dialled.

    Returns:
        PASSTHROUGH: forward the TLS connection unopened. ALLOW: intercept it, and judge each request.
        DENY: no HTTP request to this host and port can be allowed; intercept to say so. Rules for raw TCP aren't
        asked: see `may_be_tcp`.
    """
    if host.name == TRUST_HOST:
        return _builtin(Verdict.DENY, host, port)
    intercepted = False
    for rule in policy.rules_for(host, port):
        if rule.protocol is Protocol.TCP:
            continue
        if rule.verdict is Verdict.DENY and rule.narrowed:
            # A maybe. What it denies can't be told apart unopened, so a passthrough behind it no longer applies.
            intercepted = True
            continue
        decision = _by(rule, host, port)
        if intercepted and decision.verdict is Verdict.PASSTHROUGH:
            return Decision(Verdict.ALLOW, decision.reason, host, port, rule)
        return decision
    return _by_default(policy, host, port)


def judge_request(policy: Policy, host: Host, port: int, method: str, path: str) -> Decision:
    """
    Stage two: one whole HTTP request. The verdict is ALLOW or DENY; `passthrough` counts as `allow`.

    Args:
        path: As it stands in the request, with or without its query.
    """
    if host.name == TRUST_HOST:
        return _builtin(Verdict.ALLOW, host, port)
    paths = None
    for rule in policy.rules_for(host, port):
        if rule.protocol is Protocol.TCP or not rule.takes_method(method):
            continue
        if rule.paths:
            paths = readings(path) if paths is None else paths
            if not rule.takes_path(paths):
                continue
        verdict = Verdict.DENY if rule.verdict is Verdict.DENY else Verdict.ALLOW
        return Decision(verdict, _by(rule, host, port).reason, host, port, rule)
    return _by_default(policy, host, port)


def judge_tcp(policy: Policy, host: Host, port: int) -> Decision:
    """
    A connection that isn't HTTP, or of which that can't be known. The verdict is ALLOW or DENY.

    Rules of `protocol: tcp` decide, and denials of either protocol. A denial narrowed by methods or paths yields
    to a later tcp rule, but not to `default: allow`: nobody sees whether the bytes are what it denies.
    """
    if host.name == TRUST_HOST:
        return _builtin(Verdict.DENY, host, port)
    narrowed: Rule | None = None
    for rule in policy.rules_for(host, port):
        if rule.narrowed:
            narrowed = narrowed or (rule if rule.verdict is Verdict.DENY else None)
        elif rule.protocol is Protocol.TCP or rule.verdict is Verdict.DENY:
            return _by(rule, host, port)
    return _by(narrowed, host, port) if narrowed else _by_default(policy, host, port)


def may_be_tcp(policy: Policy, host: Host, port: int) -> bool:
    """
    Whether raw TCP to this host and port is allowed.

    With a `judge_name` of DENY, nothing but raw TCP is: forward without waiting for the client's first bytes.
    With any other, both may come: what the client says first tells which judge to ask.
    """
    return judge_tcp(policy, host, port).allowed


def _by(rule: Rule, host: Host, port: int) -> Decision:
    reason = Reason.RULE_DENY if rule.verdict is Verdict.DENY else Reason.RULE_ALLOW
    return Decision(rule.verdict, reason, host, port, rule)


def _builtin(verdict: Verdict, host: Host, port: int) -> Decision:
    return Decision(verdict, Reason.BUILTIN, host, port)


def _by_default(policy: Policy, host: Host, port: int) -> Decision:
    reason = Reason.DEFAULT_ALLOW if policy.default is Verdict.ALLOW else Reason.DEFAULT_DENY
    return Decision(policy.default, reason, host, port)
