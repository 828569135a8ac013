"""What the workload is told: why its request wasn't forwarded, by which rule, and what can be done about it."""

from dataclasses import dataclass
from typing import Any

from sidecar.events.text import dumps
from sidecar.policy import Decision, Verdict
from sidecar.reasons import Reason

MEDIA_TYPE = "application/problem+json"

_HINTS = {
    Reason.DEFAULT_DENY: "No rule allows this. If it is needed, ask the owner of the policy for an allow rule.",
    Reason.RULE_DENY: "A rule denies this on purpose. Retrying won't help.",
    Reason.BUILTIN: "The sidecar answers for this name itself; it is there to try whether a client trusts it.",
    Reason.IDENTITY_MISMATCH: "Send each request on a connection that was opened for its own host.",
    Reason.MALFORMED_REQUEST: "Send one well-formed request with one valid Host.",
    Reason.PRIVATE_ADDRESS: "The name leads to an address that isn't on the public Internet; "
    "the owner of the policy can except it under network.allow_addresses.",
    Reason.CA_EXPIRED: "The sidecar's CA has expired. Retrying helps once its operator has mounted a current one.",
    Reason.POLICY_CHANGED: "The policy was tightened while this was under way. Retrying won't help.",
    Reason.UPSTREAM_TLS: "The upstream's TLS couldn't be verified; the sidecar never forwards to an unproven server.",
    Reason.UPSTREAM_UNRESOLVED: "The name has no address.",
    Reason.UPSTREAM_UNREACHABLE: "The upstream can't be reached from here at the moment.",
    Reason.UPSTREAM_PROXY: "The proxy that the sidecar has to use didn't let this through; its operator can tell why.",
    Reason.OVERLOAD: "The sidecar is at one of its limits. Retrying later helps.",
    Reason.TOO_MANY_CONNECTIONS: "The workload has too many connections open. Reuse them, or close some.",
    Reason.HEAD_TOO_SLOW: "Send the whole head of a request at once.",
    Reason.HEAD_TOO_LARGE: "Send fewer or smaller headers; the operator of the sidecar can raise the limit.",
    Reason.INTERNAL_ERROR: "A defect of the sidecar, which refuses when in doubt. Its log has the details.",
}

_STATUS = {
    Reason.PRIVATE_ADDRESS: 403,
    Reason.POLICY_CHANGED: 403,
    Reason.UDP: 403,
    Reason.INTERNAL_ERROR: 503,
    Reason.CA_EXPIRED: 503,
    Reason.SHUTDOWN: 503,
    Reason.OVERLOAD: 503,
    Reason.TOO_MANY_CONNECTIONS: 503,
    Reason.HEAD_TOO_SLOW: 408,
    Reason.HEAD_TOO_LARGE: 431,
    Reason.TIMEOUT: 504,
}


@dataclass(frozen=True, slots=True)
class Failure:
    """Why something that was allowed didn't come about."""

    reason: Reason
    detail: str

    @property
    def is_denial(self) -> bool:
        """The sidecar refused, rather than the network."""
        return self.reason in (Reason.PRIVATE_ADDRESS, Reason.INTERNAL_ERROR, Reason.UDP)


@dataclass(frozen=True, slots=True)
class Problem:
    """A refusal as the workload reads it (RFC 9457)."""

    status: int
    reason: Reason
    detail: str
    rule: str | None = None

    @classmethod
    def of_decision(cls, decision: Decision, request: str = "") -> "Problem":
        """The problem that a denying decision is; *request* is its method and path, where another might be allowed."""
        assert decision.verdict is Verdict.DENY
        by = f"by {decision.rule.label}" if decision.rule else "by default: no rule allows it"
        if decision.reason is Reason.BUILTIN:
            by = "to all but HTTPS: the sidecar answers for it itself"
        return cls(
            403,
            decision.reason,
            f"{f'{request} to ' if request else ''}{decision.host} port {decision.port} is denied {by}",
            decision.rule.label if decision.rule else None,
        )

    @classmethod
    def of_failure(cls, failure: Failure, status: int | None = None) -> "Problem":
        return cls(status or _STATUS.get(failure.reason, 502), failure.reason, failure.detail)

    def body(self, **context: Any) -> bytes:
        """
        The JSON document; *context* is what the request was: method, URL, its id in the events.

        Texts are cut off and made valid UTF-8, as they are in the events: they hold what the client has sent.
        """
        return (
            dumps(
                {
                    "type": f"urn:egress-sidecar:{self.reason}",
                    "title": "Refused by the egress sidecar"
                    if self.status < 500
                    else "Not completed by the egress sidecar",
                    "status": self.status,
                    "reason": self.reason,
                    "detail": self.detail,
                    "rule": self.rule,
                    "hint": _HINTS.get(self.reason, ""),
                    **context,
                }
            )
            + b"\n"
        )
