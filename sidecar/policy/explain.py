"""Which rule decides, and why each one before it didn't."""

from dataclasses import dataclass

from sidecar.errors import SidecarError
from sidecar.hosts import Host, HostError, parse_authority
from sidecar.policy.decide import judge_name, judge_request, judge_tcp
from sidecar.policy.paths import normalise, readings
from sidecar.policy.rules import Decision, Policy, PortRange, Protocol, Rule, Verdict
from sidecar.reasons import Reason

_PORTS = {"http": 80, "https": 443, "ws": 80, "wss": 443}


class UrlError(SidecarError):
    """The text is no URL that can be judged."""


@dataclass(frozen=True, slots=True)
class Target:
    """What a URL asks for. ``scheme`` is http, https, ws, wss or tcp."""

    scheme: str
    host: Host
    port: int
    path: str


@dataclass(frozen=True, slots=True)
class Explanation:
    """A decision, and the rules that were passed over on the way to it, each with its reason."""

    decision: Decision
    passed_over: tuple[tuple[Rule, str], ...]


def parse_url(url: str) -> Target:
    """
    Raises:
        UrlError: Not ``scheme://host[:port][/path]`` with scheme http, https, ws or wss; or ``tcp://host:port``.
    """
    scheme, colon, rest = url.partition("://")
    scheme = scheme.lower()
    if not colon or scheme not in (*_PORTS, "tcp"):
        raise UrlError(f"{url!r} is not a URL; write 'https://api.example.com/path' or 'tcp://db.example.com:5432'")
    at = min((i for i in (rest.find(mark) for mark in "/?#") if i >= 0), default=len(rest))
    path = rest[at:].partition("#")[0]
    try:
        authority = parse_authority(rest[:at])
    except HostError as e:
        raise UrlError(f"{url!r}: {e}") from None
    port = authority.port or _PORTS.get(scheme)
    if port is None:
        raise UrlError(f"{url!r} has no port; write 'tcp://{authority.host}:5432' with the port in question")
    return Target(scheme, authority.host, port, path if path.startswith("/") else f"/{path}")


def explain_url(policy: Policy, url: str, method: str = "GET") -> Explanation:
    """
    Decide as the sidecar would, and say why. A URL that is passed through unopened has that as its decision.

    Raises:
        UrlError: As from `parse_url`.
    """
    target = parse_url(url)
    host, port = target.host, target.port
    if target.scheme == "tcp":
        decision = judge_tcp(policy, host, port)
    else:
        decision = judge_name(policy, host, port)
        if target.scheme not in ("https", "wss") or decision.verdict is not Verdict.PASSTHROUGH:
            decision = judge_request(policy, host, port, method, target.path)
    if decision.reason is Reason.BUILTIN:
        return Explanation(decision, ())
    end = len(policy.rules) if decision.rule is None else decision.rule.index
    return Explanation(decision, tuple((rule, why_not(rule, target, method)) for rule in policy.rules[:end]))


def why_not(rule: Rule, target: Target, method: str) -> str:
    """Why *rule* doesn't decide; for one that does, the answer makes no sense."""
    if not rule.takes_host(target.host):
        names_only = target.host.is_address and all(pattern.network is None for pattern in rule.patterns)
        return f"{target.host} is not among its hosts" + (": names never match an address" if names_only else "")
    if not rule.takes_port(target.port):
        return f"port {target.port} is not among its ports ({_ports(rule.ports)})"
    if target.scheme == "tcp":
        return "it is about HTTP requests, not raw TCP"
    if rule.protocol is Protocol.TCP:
        return "it is about raw TCP, not HTTP requests"
    if not rule.takes_method(method):
        return f"method {method} is not among its methods ({', '.join(sorted(rule.methods))})"
    paths = ", ".join(pattern.text for pattern in rule.paths)
    if len(readings(target.path)) > 1 and rule.verdict is not Verdict.DENY:
        return f"not every way to read the path ({', '.join(normalise(target.path))}) is among its paths ({paths})"
    return f"path {', '.join(normalise(target.path))} is not among its paths ({paths})"


def _ports(ports: tuple[PortRange, ...]) -> str:
    return ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in ports)
