"""
DNS as a channel for data: told by the names, since each query carries what its name says.

A host has few names; a tunnel needs a new one for each message, and packs it with data. So each *new* name under one
suffix costs, a long or random one costs more, and the suffix's budget refills slowly. A name that was seen carries
nothing new and is free. No clock in here: *now* is seconds of a monotonic clock, brought by the caller.
"""

import math
from collections import Counter, OrderedDict
from dataclasses import dataclass, field

from sidecar.names.outcomes import DnsReason


@dataclass(frozen=True, slots=True)
class Limits:
    """How many new names under one suffix are still a client's, and from where on they are a channel's."""

    burst: float = 400  # cost that a suffix may run up at once
    refill_per_s: float = 0.2  # cost that it gets back
    suspicious_cost: float = 10  # of a long or random name; a plain one costs 1
    label_length: int = 48  # characters; from here on a label is long
    name_length: int = 120  # characters; from here on a name is long
    random_length: int = 20  # characters without a hyphen; shorter words aren't judged by their entropy
    random_bits: float = 3.6  # entropy per character from which on a word is random
    suffixes: int = 1024  # suffixes remembered at once
    names_per_suffix: int = 512  # names remembered for each


# A query that leaves the pod can carry data out. One that gets a synthetic address can't: there only the range is
# at stake, and many a storage service has one name per bucket.
LEAVING = Limits()
FILLING = Limits(
    burst=4096, refill_per_s=1, suspicious_cost=8, names_per_suffix=0
)  # whoever has an address isn't asked


def suffix_of(name: str) -> str:
    """
    The last two labels of *name*: whose channel it would be.

    Coarser than the public suffix list where registries sell third-level names (``co.uk``): such neighbours share a
    budget.
    """
    return ".".join(name.split(".")[-2:])


def entropy_bits(word: str) -> float:
    """Shannon entropy per character of *word*, in bits; 4.0 is the most that hexadecimal has."""
    counts = Counter(word)
    return -sum(n / len(word) * math.log2(n / len(word)) for n in counts.values())


def suspicion(name: str, limits: Limits) -> DnsReason | None:
    """Does *name* itself look as if it carried data? A reason, or None."""
    labels = name.split(".")[:-2]
    if len(name) >= limits.name_length or any(len(label) >= limits.label_length for label in labels):
        return DnsReason.LONG_NAME
    for label in labels:
        for word in label.split("-"):  # long names of services are words with hyphens between them
            if len(word) >= limits.random_length and entropy_bits(word) >= limits.random_bits:
                return DnsReason.RANDOM_NAME
    return None


@dataclass(slots=True)
class _Suffix:
    budget: float
    at: float
    names: OrderedDict[str, None] = field(default_factory=OrderedDict)


class Channel:
    """Budgets by suffix, and the names that were paid for. Bounded: what was asked longest ago is forgotten first."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._suffixes: OrderedDict[str, _Suffix] = OrderedDict()

    def refuse(self, name: str, *, now: float) -> DnsReason | None:
        """May one more question about *name* be served? None, or the reason why not. A refused name costs nothing."""
        limits = self.limits
        key = suffix_of(name)
        suffix = self._suffixes.setdefault(key, _Suffix(limits.burst, now))
        self._suffixes.move_to_end(key)
        if len(self._suffixes) > limits.suffixes:
            self._suffixes.popitem(last=False)
        if name in suffix.names:
            suffix.names.move_to_end(name)
            return None
        suffix.budget = min(limits.burst, suffix.budget + (now - suffix.at) * limits.refill_per_s)
        suffix.at = now
        looks = suspicion(name, limits)
        cost = 1 if looks is None else limits.suspicious_cost
        if suffix.budget < cost:
            return looks or DnsReason.MANY_NAMES
        suffix.budget -= cost
        suffix.names[name] = None
        if len(suffix.names) > limits.names_per_suffix:
            suffix.names.popitem(last=False)
        return None


class Throttle:
    """A token bucket for events: so many at once, so many a second, and how many were left out since."""

    def __init__(self, *, burst: float = 20, per_s: float = 0.5) -> None:
        self._burst, self._per_s = burst, per_s
        self._tokens, self._at = burst, -math.inf
        self._suppressed = 0

    def admit(self, *, now: float) -> int | None:
        """None where this event is to be left out; else how many were left out since the last that wasn't."""
        if self._at != -math.inf:
            self._tokens = min(self._burst, self._tokens + (now - self._at) * self._per_s)
        self._at = now
        if self._tokens < 1:
            self._suppressed += 1
            return None
        self._tokens -= 1
        return self.drain()

    def drain(self) -> int:
        """How many were left out and not yet told: for a last event at the end."""
        suppressed, self._suppressed = self._suppressed, 0
        return suppressed
