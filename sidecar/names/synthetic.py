"""One synthetic address per name, so that an original destination *is* a name."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from sidecar.errors import SidecarError
from sidecar.hosts import IPAddress

KEY_BYTES = 32


class SyntheticError(SidecarError):
    """The key or the ranges can't be used."""


@dataclass(frozen=True, slots=True)
class Pair:
    """The two synthetic addresses of one name."""

    v4: IPv4Address
    v6: IPv6Address


class SyntheticNames:
    """
    Names and their addresses: chosen by a keyed hash of the name, never reassigned, bounded.

    The key makes a restarted sidecar choose the same addresses again, and keeps the workload from finding two names
    that collide. It is a secret of the session. Where two names do want one address, the later one gets the next
    free one: what a workload remembers across a restart may then be another name's, which is why `adopt` takes
    over what was assigned before, by an earlier process or by another worker.
    """

    def __init__(self, key: bytes, v4: IPv4Network, v6: IPv6Network, capacity: int) -> None:
        """
        Args:
            key: 16 to 64 random bytes, the same after a restart.
            v4: Range to take from; its first and last address are left out.
            v6: The same.
            capacity: Names that fit, at most half of each range: so a free address is a few probes away.

        Raises:
            SyntheticError: The key is too short or too long, or *capacity* doesn't fit the ranges.
        """
        if not 16 <= len(key) <= 64:
            raise SyntheticError(f"the key of the synthetic addresses has {len(key)} bytes; give it {KEY_BYTES}")
        fit = min(v4.num_addresses, v6.num_addresses) // 2 - 1
        if not 0 < capacity <= fit:
            raise SyntheticError(f"{capacity} names don't fit {v4} and {v6} half full; write 1 to {fit}")
        self.v4, self.v6, self.capacity = v4, v6, capacity
        self._key = key
        self._pairs: dict[str, Pair] = {}
        self._names: dict[IPAddress, str] = {}

    def __len__(self) -> int:
        return len(self._pairs)

    def __iter__(self) -> Iterator[tuple[str, Pair]]:
        """All names with their addresses, in the order in which they were assigned."""
        return iter(self._pairs.items())

    def __contains__(self, address: IPAddress) -> bool:
        """Is *address* in one of the ranges, assigned or not?"""
        return address in self.v4 if isinstance(address, IPv4Address) else address in self.v6

    def pair_of(self, name: str) -> Pair | None:
        """The addresses of *name*, if it has any."""
        return self._pairs.get(name)

    def name_of(self, address: IPAddress) -> str | None:
        """The name that *address*, an original destination, was assigned to."""
        return self._names.get(address)

    def assign(self, name: str) -> Pair | None:
        """The addresses of *name* (a normalised `Host.name`): those it has, or new ones; None when full."""
        pair = self._pairs.get(name)
        if pair is not None:
            return pair
        if len(self._pairs) >= self.capacity:
            return None
        pair = self.choose(name)
        self._enter(name, pair)
        return pair

    def choose(self, name: str) -> Pair:
        """The addresses that `assign` would give *name*, which has none yet."""
        digest = hashlib.blake2b(name.encode(), key=self._key, digest_size=32).digest()
        return Pair(
            IPv4Address(self._free(self.v4, int.from_bytes(digest[:16]))),
            IPv6Address(self._free(self.v6, int.from_bytes(digest[16:]))),
        )

    def restore(self, name: str, address: IPAddress) -> bool:
        """Assign *name* its addresses if *address* is one of them: a client has kept it across our restart."""
        pair = self._pairs.get(name) or self.choose(name)
        return address in (pair.v4, pair.v6) and self.assign(name) is not None

    def adopt(self, name: str, pair: Pair) -> bool:
        """Take over an assignment made elsewhere with the same key; False if it contradicts one of ours or is full."""
        known = self._pairs.get(name)
        if known is not None:
            return known == pair
        taken = pair.v4 in self._names or pair.v6 in self._names
        if taken or pair.v4 not in self.v4 or pair.v6 not in self.v6 or len(self._pairs) >= self.capacity:
            return False
        self._enter(name, pair)
        return True

    def _enter(self, name: str, pair: Pair) -> None:
        self._pairs[name] = pair
        self._names[pair.v4] = self._names[pair.v6] = name

    def _free(self, network: IPv4Network | IPv6Network, number: int) -> int:
        """The first free address at or after the *number*-th, as an integer; ends, since the range is never full."""
        usable = network.num_addresses - 2
        first = int(network.network_address) + 1
        make = type(network.network_address)
        offset = number % usable
        while make(first + offset) in self._names:
            offset = (offset + 1) % usable
        return first + offset
