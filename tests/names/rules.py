"""A policy as the resolver sees it, written as a table."""

from dataclasses import dataclass, field

from sidecar.hosts import Host
from sidecar.names.questions import Naming


@dataclass(frozen=True)
class Table:
    """Rules by exact name; `below` names everything under a suffix, as a wildcard does."""

    allowed: frozenset[str] = frozenset()
    real_names: frozenset[str] = frozenset()
    typed: dict[str, frozenset[int]] = field(default_factory=dict)
    exact: frozenset[str] = frozenset()
    below: tuple[str, ...] = ()

    def allows(self, host: Host) -> bool:
        return host.name in self.allowed

    def real(self, host: Host) -> bool:
        return host.name in self.real_names

    def types(self, host: Host) -> frozenset[int]:
        return self.typed.get(host.name, frozenset())

    def naming(self, host: Host, search: tuple[str, ...]) -> Naming:
        if host.name in self.exact:
            return Naming.EXACT
        return Naming.SUFFIX if any(host.name.endswith(f".{suffix}") for suffix in self.below) else Naming.NO
