"""What a new policy takes back: connections and requests that the old one had allowed, judged again as they stand."""

from collections.abc import Container, Iterable
from dataclasses import dataclass

from sidecar.addresses import guard
from sidecar.hosts import IPAddress, parse_host
from sidecar.ledger import ConnectionRecord, RequestRecord
from sidecar.policy import Decision, Policy, Verdict, judge_name, judge_request, judge_tcp
from sidecar.problem import Failure, Problem
from sidecar.reasons import Reason


@dataclass(frozen=True, slots=True)
class Dialled:
    """An upstream connection that is open for a client, by the name that was judged."""

    host: str
    port: int
    address: IPAddress | None = None  # its peer; None where that is a proxy, which says nothing about the host


@dataclass(frozen=True, slots=True)
class Revocation:
    """What must end of one client connection. Empty if the policy still allows all of it."""

    connection: Failure | None = None  # the whole connection, which is spliced; and why
    requests: tuple[tuple[RequestRecord, Failure], ...] = ()
    upstreams: frozenset[Dialled] = frozenset()  # no request may go there any more

    def __bool__(self) -> bool:
        return bool(self.connection or self.requests or self.upstreams)

    @property
    def ends_something(self) -> bool:
        """Whether the workload notices: an upstream that idles may go without."""
        return bool(self.connection or self.requests)

    def mark(self, connection: ConnectionRecord) -> None:
        """Note in the records why they are going to end, however that shows when it happens."""
        connection.revoked = connection.revoked or self.connection
        for request, failure in self.requests:
            request.revoked = failure


def revocation(
    policy: Policy, connection: ConnectionRecord, dialled: Iterable[Dialled], own: Container[IPAddress] = frozenset()
) -> Revocation:
    """
    Judge a client connection again by the policy that is now in force.

    Requests that haven't been allowed are left to whoever is judging them: they get the new policy, too.

    Args:
        dialled: The client's upstream connections that are open.
        own: The pod's own addresses.
    """
    open_ = tuple(dialled)
    if connection.spliced is not None:
        return Revocation(None if connection.closed else _spliced(policy, connection, connection.spliced, open_, own))
    unusable = {upstream: why for upstream in open_ if (why := _upstream(policy, upstream, own)) is not None}
    requests = []
    for request in connection.requests.values():
        if not request.allowed or request.revoked is not None:
            continue
        decision = judge_request(policy, parse_host(request.host), request.port, request.method, request.path)
        if decision.verdict is Verdict.DENY:
            requests.append((request, _changed(Problem.of_decision(decision).detail)))
        elif why := next((w for u, w in unusable.items() if (u.host, u.port) == (request.host, request.port)), None):
            requests.append((request, _changed(why)))
    return Revocation(None, tuple(requests), frozenset(unusable))


def renew(policy: Policy, connection: ConnectionRecord) -> None:
    """Take back what was decided of a connection's name, for whatever is still to come on it."""
    if connection.spliced is None and connection.name is not None:
        connection.name = judge_name(policy, connection.name.host, connection.name.port)
    cleared = list(connection.cleared)
    connection.cleared.clear()
    for name, port in cleared:
        host = parse_host(name)
        decision = judge_name(policy, host, port) if connection.protocol != "tcp" else judge_tcp(policy, host, port)
        if decision.allowed:
            connection.clear(decision)


def _spliced(
    policy: Policy, connection: ConnectionRecord, was: Decision, dialled: tuple[Dialled, ...], own: Container[IPAddress]
) -> Failure | None:
    """A tunnel that isn't looked into. Passed through once, it must be so by the new policy, or go as raw TCP."""
    if connection.revoked is not None:
        return None
    tcp = judge_tcp(policy, was.host, was.port)
    if connection.protocol == "passthrough":
        name = judge_name(policy, was.host, was.port)
        if name.verdict is Verdict.ALLOW:
            return _changed(f"{was.host} port {was.port} is no longer passed through unopened")
        if name.verdict is Verdict.DENY and not tcp.allowed:
            return _changed(Problem.of_decision(name).detail)
    elif not tcp.allowed:
        return _changed(Problem.of_decision(tcp).detail)
    refused = (_address(policy, upstream, was, own) for upstream in dialled)
    return next((_changed(why) for why in refused if why is not None), None)


def _upstream(policy: Policy, upstream: Dialled, own: Container[IPAddress]) -> str | None:
    decision = judge_name(policy, parse_host(upstream.host), upstream.port)
    if decision.verdict is Verdict.DENY:
        return Problem.of_decision(decision).detail
    return _address(policy, upstream, decision, own)


def _address(policy: Policy, upstream: Dialled, decision: Decision, own: Container[IPAddress]) -> str | None:
    """Why the address of an upstream may not be talked to any more; a rule that names the address excepts it."""
    if upstream.address is None:
        return None
    rule = decision.rule if decision.host.is_address else None
    by_rule = (pattern.network for pattern in rule.patterns if pattern.network is not None) if rule else ()
    kind = guard(upstream.address, (*policy.network.allow_addresses, *by_rule), own)
    return None if kind is None else f"{upstream.host} leads to {upstream.address}, which is {kind.replace('_', ' ')}"


def _changed(detail: str) -> Failure:
    return Failure(Reason.POLICY_CHANGED, f"the policy has changed: {detail}")
