"""From a host to the rules that name it, without asking each rule."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from sidecar.hosts import IPAddress
from sidecar.policy.globs import MANY, ONE, glob_matches
from sidecar.policy.patterns import HostPattern, IPNetwork

type Labels = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Index:
    """Rules by the hosts that they name. Lookups cost as many steps as the host has labels."""

    names: Mapping[str, tuple[int, ...]]
    suffixes: Mapping[str, tuple[tuple[Labels, int], ...]]  # suffix -> what must stand before it, and the rule
    addresses: Mapping[IPAddress, tuple[int, ...]]
    networks: tuple[tuple[IPNetwork, int], ...]

    def of_name(self, name: str) -> Sequence[int]:
        """
        The indexes of the rules with a pattern for *name*, in the order of the rules.

        *name* may hold wildcards: then those are found that cover the whole pattern.
        """
        found = self.names.get(name, ())
        more: list[int] = []
        at = name.find(".")
        count = 1  # of the labels before `at`
        while at >= 0:
            if entries := self.suffixes.get(name[at + 1 :]):
                more += _before(entries, name[:at], count)
            at = name.find(".", at + 1)
            count += 1
        if entries := self.suffixes.get(""):
            more += _before(entries, name, count)
        return sorted({*found, *more}) if more else found

    def of_address(self, address: IPAddress) -> Sequence[int]:
        """The indexes of the rules with a pattern for *address*, in the order of the rules."""
        found = self.addresses.get(address, ())
        more = [rule for network, rule in self.networks if address in network]
        return sorted({*found, *more}) if more else found


def _before(entries: tuple[tuple[Labels, int], ...], rest: str, count: int) -> list[int]:
    found = []
    for labels, rule in entries:
        if (
            labels == (MANY,)
            or (labels == (ONE,) and count == 1 and rest != MANY)
            or (len(labels) > 1 and glob_matches(labels, rest.split("."), least=1))
        ):
            found.append(rule)
    return found


def build_index(rules: Iterable[Iterable[HostPattern]]) -> Index:
    """Index the patterns of each rule, in the order of the rules."""
    names: dict[str, dict[int, None]] = {}
    suffixes: dict[str, dict[tuple[Labels, int], None]] = {}
    addresses: dict[IPAddress, dict[int, None]] = {}
    networks: dict[tuple[IPNetwork, int], None] = {}
    for rule, patterns in enumerate(rules):
        for pattern in patterns:
            if pattern.network is not None and pattern.exact:
                addresses.setdefault(pattern.network.network_address, {})[rule] = None
            elif pattern.network is not None:
                networks[pattern.network, rule] = None
            elif pattern.exact:
                names.setdefault(".".join(pattern.labels), {})[rule] = None
            else:
                suffix = pattern.suffix
                before = pattern.labels[: len(pattern.labels) - len(suffix)]
                suffixes.setdefault(".".join(suffix), {})[before, rule] = None
    return Index(
        MappingProxyType({name: tuple(found) for name, found in names.items()}),
        MappingProxyType({suffix: tuple(entries) for suffix, entries in suffixes.items()}),
        MappingProxyType({address: tuple(found) for address, found in addresses.items()}),
        tuple(networks),
    )
