"""Real answers, remembered: which names the workload may mean by an address it was given."""

from collections import OrderedDict
from collections.abc import Iterable

from sidecar.hosts import IPAddress


class HandedOut:
    """
    Address to names, for ``dns: real``; one address of a CDN may be many names'.

    Bounded in addresses and in names for each; what was handed out longest ago goes first.
    """

    def __init__(self, *, capacity: int = 16384, names_per_address: int = 64, grace_s: float = 3600) -> None:
        """
        Args:
            capacity: Addresses remembered at once.
            names_per_address: Names remembered for each of them.
            grace_s: Seconds that an answer is remembered beyond its TTL: clients keep addresses for longer than
                they should, some for as long as they run.
        """
        self._capacity, self._per_address, self._grace_s = capacity, names_per_address, grace_s
        self._entries: OrderedDict[IPAddress, OrderedDict[str, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def remember(self, name: str, addresses: Iterable[IPAddress], *, ttl_s: float, now: float) -> None:
        """Note that *name* was answered with *addresses*, at *now* in seconds of a monotonic clock."""
        for address in addresses:
            names = self._entries.setdefault(address, OrderedDict())
            names[name] = max(names.pop(name, 0.0), now + ttl_s + self._grace_s)
            if len(names) > self._per_address:
                names.popitem(last=False)
            self._entries.move_to_end(address)
            if len(self._entries) > self._capacity:
                self._entries.popitem(last=False)

    def names_of(self, address: IPAddress, *, now: float) -> tuple[str, ...]:
        """The names that *address* was handed out for and that haven't expired, latest first."""
        names = self._entries.get(address)
        if names is None:
            return ()
        for name in [name for name, until in names.items() if until <= now]:
            del names[name]
        if not names:
            del self._entries[address]
        return tuple(reversed(names))
