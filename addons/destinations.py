"""Original destinations: which name, or which address, a redirected connection is going to."""

import time
from collections.abc import Callable

from sidecar.hosts import Authority, Host, IPAddress, parse_host
from sidecar.ledger import ConnectionRecord, Ledger
from sidecar.names.handed_out import HandedOut
from sidecar.names.synthetic import SyntheticNames
from sidecar.policy import Policy, judge_name


class Destinations:
    """
    Turns the address before the redirect back into what the workload asked for.

    A synthetic address stands for one name. A real one that was handed out for several names is any of them: SNI or
    Host picks. Every other is an address, for which address rules alone count.
    """

    name = "egress_destinations"

    def __init__(
        self,
        policy: Callable[[], Policy],
        ledger: Ledger,
        synthetic: SyntheticNames,
        handed_out: HandedOut,
        search: tuple[str, ...] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.ledger = ledger
        self._policy, self._synthetic, self._handed_out, self._clock = policy, synthetic, handed_out, clock
        self._search = search
        self._spelled: dict[IPAddress, str] = {}
        self._spelled_by: Policy | None = None

    def claim(self, connection_id: str, address: IPAddress, port: int) -> Authority:
        """Note where a new connection goes; gives what to dial, by name where there is one."""
        record = self.ledger.connection(connection_id)
        names = self._names(address)
        if not names and address in self._synthetic:
            names = self._kept(address)
            record.kept = None if names else lambda host: self._synthetic.restore(host.name, address)
        host = names[0] if len(names) == 1 else Host(str(address), address)
        record.candidates = names if len(names) > 1 else ()
        record.aliases = frozenset() if host.is_address else self._aliases(host)
        record.authority = Authority(host, port)
        record.name = judge_name(self._policy(), host, port)
        return record.authority

    def _aliases(self, host: Host) -> frozenset[Host]:
        """What a workload may have written, that its resolver has made *host* of, and that it writes into Host."""
        short = (host.name.removesuffix(f".{domain}") for domain in self._search)
        return frozenset(parse_host(name) for name in short if name != host.name)

    def _names(self, address: IPAddress) -> tuple[Host, ...]:
        if (name := self._synthetic.name_of(address)) is not None:
            return (parse_host(name),)
        return tuple(parse_host(name) for name in self._handed_out.names_of(address, now=self._clock()))

    def _kept(self, address: IPAddress) -> tuple[Host, ...]:
        """The name that the workload was told this address for before a restart, if a rule spells that name out."""
        policy = self._policy()
        if policy is not self._spelled_by:
            pairs = ((name, self._synthetic.choose(name)) for name in policy.index.names)
            self._spelled = {kept: name for name, pair in pairs for kept in (pair.v4, pair.v6)}
            self._spelled_by = policy
        name = self._spelled.get(address)
        return (parse_host(name),) if name is not None and self._synthetic.restore(name, address) else ()


def choose(record: ConnectionRecord, host: Host | None, policy: Policy) -> None:
    """Of the names that the destination may be, *host* is the one: the client has said so by SNI or Host."""
    if host is None or not (host in record.candidates or _was_kept(record, host)):
        return
    assert record.authority is not None and record.authority.port is not None
    port = record.authority.port
    record.candidates, record.kept = (), None
    record.authority = Authority(host, port)
    record.name = judge_name(policy, host, port)


def _was_kept(record: ConnectionRecord, host: Host) -> bool:
    return record.kept is not None and not host.is_address and record.kept(host)
