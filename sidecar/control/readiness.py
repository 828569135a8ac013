"""Is the sidecar started, is it ready, and if not, why not: decided from facts, without looking at the world."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from sidecar.fence.verdict import Report


class FenceMode(StrEnum):
    """What the result of the fence check is good for."""

    STRICT = "strict"  # ready only once a check has held
    REPORT = "report"  # events and status, no more
    OFF = "off"


@dataclass(frozen=True, slots=True)
class Condition:
    """What is missing: its name is a word to match on, the detail is for people."""

    condition: str  # stopping, listeners, ca, policy, redirect; of a note: ca_reload, ca_rotation, ca_expiring
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What readiness depends on, at one moment."""

    now: datetime
    listening: bool
    not_before: datetime  # of the CA
    not_after: datetime
    generation: int  # of the policy; 0 without one
    fence_mode: FenceMode
    fence: Report | None  # of the last check
    stopping: bool
    ca_problems: tuple[str, ...] = ()  # of what is mounted in the place of the CA that signs
    ca_pending: str | None = None  # why a new CA isn't used yet
    ca_expiring: bool = False


def not_started(facts: Facts) -> tuple[Condition, ...]:
    """What keeps the sidecar from having started. Never the fence: its check runs after this."""
    missing = []
    if not facts.listening:
        missing.append(Condition("listeners", "not all listeners are open"))
    if facts.generation < 1:
        missing.append(Condition("policy", "no policy is loaded"))
    return tuple(missing)


def not_ready(facts: Facts) -> tuple[Condition, ...]:
    """What keeps the sidecar from being ready; nothing if it is."""
    missing = list(not_started(facts))
    if facts.stopping:
        missing.insert(0, Condition("stopping", "the sidecar was told to end"))
    if not facts.not_before <= facts.now < facts.not_after:
        missing.append(Condition("ca", f"the CA is valid from {facts.not_before:%FT%TZ} to {facts.not_after:%FT%TZ}"))
    if facts.fence_mode is FenceMode.STRICT:
        if facts.fence is None:
            missing.append(Condition("redirect", "no fence check has reported yet; run `sidecar fence check`"))
        elif not facts.fence.held:
            names = ", ".join(failure.canary for failure in facts.fence.failures)
            missing.append(Condition("redirect", f"the fence check failed: {names}"))
    return tuple(missing)


def notes(facts: Facts) -> tuple[Condition, ...]:
    """What somebody should see to although it doesn't keep the sidecar from being ready."""
    found = []
    if facts.ca_problems:
        kept = f"the CA before it goes on until {facts.not_after:%FT%TZ}"
        found.append(Condition("ca_reload", f"{'; '.join(facts.ca_problems)} ({kept})"))
    if facts.ca_pending is not None:
        found.append(Condition("ca_rotation", facts.ca_pending))
    if facts.ca_expiring and facts.now < facts.not_after:
        found.append(Condition("ca_expiring", f"the CA ends at {facts.not_after:%FT%TZ}"))
    return tuple(found)
