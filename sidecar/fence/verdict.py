"""
What an attempt proves: an observation and the sidecar's word become a verdict.

Only a positive sign counts as held: our listener has seen the nonce, our resolver has answered, this machine's kernel
has refused to send. Silence or an unreachable network may have any cause, and the next packet may get through.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from sidecar.fence.plan import Canary, Kind


class Did(StrEnum):
    """How far an attempt came."""

    CONNECTED = "connected"
    SENT = "sent"  # a datagram, without waiting for an answer
    ANSWERED = "answered"  # by the sidecar's resolver
    ANSWERED_BY_OTHER = "answered by another resolver"
    REFUSED_HERE = "refused by this machine"  # by an ICMP error whose sender has one of our own addresses
    NO_SOCKET = "this process can't make such a socket"
    UNRESOLVED = "the name has no address"
    FAILED = "failed"
    TIMEOUT = "no answer"


@dataclass(frozen=True, slots=True)
class Observation:
    """What one attempt has seen."""

    did: Did
    errno: str | None = None  # the error's name, as EPERM

    def __str__(self) -> str:
        return f"{self.did.value}: {self.errno}" if self.errno else self.did.value


class Verdict(StrEnum):
    """What the attempt proves."""

    HELD = "held"
    WORKS = "works"
    SKIPPED = "skipped"  # the pod has nothing that it could have left by
    GOT_THROUGH = "got_through"
    BROKEN = "broken"  # should work, and doesn't
    UNPROVEN = "unproven"


GOOD: Final = frozenset({Verdict.HELD, Verdict.WORKS, Verdict.SKIPPED})
_NO_WAY: Final = frozenset({"ENETUNREACH", "EHOSTUNREACH", "EADDRNOTAVAIL", "EAFNOSUPPORT"})


@dataclass(frozen=True, slots=True)
class Result:
    """One canary's verdict, and why."""

    canary: str
    target: str
    expected: str
    seen: str
    verdict: Verdict

    @property
    def good(self) -> bool:
        return self.verdict in GOOD


@dataclass(frozen=True, slots=True)
class Report:
    """The results of one check."""

    results: tuple[Result, ...]

    @property
    def failures(self) -> tuple[Result, ...]:
        """What isn't good; and where nothing at all was held, that."""
        bad = tuple(result for result in self.results if not result.good)
        if not bad and not any(result.verdict is Verdict.HELD for result in self.results):
            none = Result("all", "-", "at least one canary is held", "every canary was skipped", Verdict.UNPROVEN)
            return (none,)
        return bad

    @property
    def held(self) -> bool:
        return not self.failures


def judge(
    canary: Canary, observation: Observation, *, arrived: bool, listening: bool, versions: Sequence[int]
) -> Result:
    """
    Give the verdict on one canary.

    Args:
        arrived: The sidecar has got its nonce.
        listening: The sidecar says that it listens on the canary's target.
        versions: The IP versions of which this pod has an address beside loopback and link-local ones.
    """
    verdict, why = _judge(canary, observation, arrived, listening, canary.version in versions)
    return Result(canary.id, canary.target, canary.expected, why or str(observation), verdict)


def _judge(
    canary: Canary, observation: Observation, arrived: bool, listening: bool, has_version: bool
) -> tuple[Verdict, str]:
    did = observation.did
    if canary.kind in (Kind.WORKS, Kind.LOOPBACK):
        return (Verdict.WORKS if did is Did.CONNECTED else Verdict.BROKEN), ""
    if arrived:
        return Verdict.HELD, "arrived at the sidecar"
    if did in (Did.CONNECTED, Did.SENT, Did.ANSWERED_BY_OTHER):
        return Verdict.GOT_THROUGH, ""
    if did is Did.FAILED and observation.errno == "EPERM":
        return Verdict.HELD, "refused by the kernel: EPERM"
    if did is Did.REFUSED_HERE:
        return Verdict.HELD, ""
    if did is Did.ANSWERED:
        return Verdict.HELD, "answered by the sidecar's resolver"
    if canary.kind is Kind.ECHO and did is Did.NO_SOCKET:
        return Verdict.HELD, ""
    if canary.kind is Kind.OWN_TCP and observation.errno == "ECONNREFUSED":
        if listening:
            return Verdict.HELD, "refused, while the sidecar listens"
        return Verdict.UNPROVEN, "refused, but the sidecar doesn't listen there"
    # No route and no address either: there is no such network to leave by. An address without a route proves nothing.
    if canary.version and observation.errno in _NO_WAY and not has_version and canary.kind is not Kind.OWN_TCP:
        return Verdict.SKIPPED, f"no IPv{canary.version} here: {observation.errno}"
    return Verdict.UNPROVEN, ""
