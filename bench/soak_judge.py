"""What a soak has to show: events that equal what clients did, and neither memory nor file descriptors that grow."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

GROWTH_MEGABYTES, GROWTH_SHARE = 2.0, 0.02  # what the median of the last third may be above the middle third's
GROWTH_DESCRIPTORS = 3


@dataclass(frozen=True, slots=True)
class Look:
    """What the sidecar's tree holds at a moment."""

    at: float  # seconds since the start
    megabytes: float
    descriptors: int


@dataclass(frozen=True, slots=True)
class Tally:
    """What the clients have seen to its end, and what was done to the sidecar meanwhile."""

    allowed: int = 0
    denied: int = 0
    failed: int = 0
    reloads: int = 0
    rotations: int = 0

    def __str__(self) -> str:
        requests = f"{self.allowed:,} allowed, {self.denied:,} denied, {self.failed:,} failed"
        return f"{requests}; {self.reloads} reloads, {self.rotations} rotations"


@dataclass(frozen=True, slots=True)
class Growth:
    """Medians of the middle third and of the last: the first is for caches to fill."""

    before: float
    after: float

    @property
    def more(self) -> float:
        return self.after - self.before


def growth(looks: Sequence[Look]) -> tuple[Growth, Growth]:
    """
    Of megabytes and of file descriptors.

    Raises:
        ValueError: There are fewer than three looks.
    """
    third = len(looks) // 3
    if not third:
        raise ValueError(f"{len(looks)} looks are too few")
    middle, last = looks[third : 2 * third], looks[-third:]
    return (
        Growth(median(look.megabytes for look in middle), median(look.megabytes for look in last)),
        Growth(median(look.descriptors for look in middle), median(look.descriptors for look in last)),
    )


def problems(
    tally: Tally, errors: Mapping[str, int], events: Mapping[str, int], looks: Sequence[Look], idle_descriptors: int
) -> list[str]:
    """
    What isn't as it should be; empty if all is.

    Args:
        errors: What clients saw that the mix doesn't explain, and how often.
        events: How often each event was written.
        idle_descriptors: How many more are open than at the start once all clients are gone.
    """
    found = [f"a client: {text} ({count}x)" for text, count in errors.items()]
    for kind, event in (("allowed", "request_closed"), ("denied", "request_denied"), ("failed", "request_failed")):
        seen, written = getattr(tally, kind), events.get(event, 0)
        if seen != written:
            found.append(f"clients saw {seen} {kind}, the events have {written} {event}")
        if not seen:
            found.append(f"the mix had no {kind} request")
    if events.get("ca_rotated", 0) != tally.rotations:
        found.append(f"{tally.rotations} rotations, {events.get('ca_rotated', 0)} ca_rotated")
    found += [f"{events[name]}x {name}" for name in ("internal_error", "events_dropped") if events.get(name)]
    memory, descriptors = growth(looks)
    if memory.more > max(GROWTH_MEGABYTES, memory.before * GROWTH_SHARE):
        found.append(f"memory grew from {memory.before:.1f} to {memory.after:.1f} MB")
    if descriptors.more > GROWTH_DESCRIPTORS:
        found.append(f"file descriptors grew from {descriptors.before:.0f} to {descriptors.after:.0f}")
    if idle_descriptors > GROWTH_DESCRIPTORS:
        found.append(f"{idle_descriptors} file descriptors are left open")
    return found
