"""How much is measured: the whole, and the quick form that gives a verdict in minutes."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from bench.proxies import Contestant, Proxy
from bench.rows import Row
from bench.upstream import BIG_BYTES, Upstream
from bench.wire import Load

# By other modules, in processes of their own, once for the whole run.
ONCE = frozenset({Row.CONNECTIONS_RSS, Row.GROWTH})
ELSEWHERE = ONCE | {Row.TRANSPARENT}
AT_START = frozenset({Row.START, Row.IDLE_RSS})
BULK = frozenset({Row.DOWNLOAD, Row.UPLOAD})


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Rows, contestants, and how much of each."""

    rows: Sequence[Row] = tuple(Row)
    contestants: Sequence[Contestant] = tuple(Contestant)
    rounds: int = 5
    seconds: float = 0.7  # of load, for each row of each round
    down_megabytes: float = BIG_BYTES / 1e6
    up_megabytes: float = 500.0
    connections: int = 1000  # to hold open
    requests: int = 50_000
    growth_of: Sequence[Contestant] = (Contestant.MITMDUMP, Contestant.SQUID, Contestant.SIDECAR)

    without: Collection[tuple[Contestant, Row]] = ()  # loads that no promise asks for

    def has(self, row: Row) -> bool:
        return row in self.rows

    def loads(self) -> list[Row]:
        """Those that need a client; the bulk ones first, while memory is as it was after the start."""
        measured = {row.measured_by for row in self.rows} - ELSEWHERE - AT_START
        return sorted(measured, key=lambda row: (row not in BULK, list(Row).index(row)))

    def turns(self, number: int) -> list[Contestant]:
        """Who is measured after whom: each round begins with another one."""
        order = [c for c in Contestant if c in self.contestants]
        number %= len(order)
        return order[number:] + order[:number]

    def load(self, upstream: Upstream, proxy: Proxy, row: Row, number: int = 0) -> Load:
        """What a client does for *row* in round *number*."""
        return Load(
            row=row.against,
            proxy_port=proxy.port,
            upstream_port=upstream.port,
            live_port=upstream.live_port,
            ca_file=str(upstream.root if row is Row.PASSTHROUGH else proxy.ca_file),
            seconds=self.seconds,
            round=number,
            megabytes={Row.DOWNLOAD: self.down_megabytes, Row.UPLOAD: self.up_megabytes}.get(row, 0.0),
        )


QUICK = Plan(
    rows=[row for row in Row if row not in {Row.RESUMED, Row.PASSTHROUGH, Row.DENIED, Row.WEBSOCKET, Row.TRANSPARENT}],
    contestants=(Contestant.DIRECT, Contestant.MITMDUMP, Contestant.SQUID, Contestant.SIDECAR),
    rounds=3,
    seconds=0.35,
    down_megabytes=BIG_BYTES / 4e6,
    connections=250,
    growth_of=(Contestant.SIDECAR,),
    without=[
        *((Contestant.DIRECT, row) for row in Row if row not in {Row.DOWNLOAD, Row.EVENT_DELAY}),
        *((Contestant.SQUID, row) for row in (Row.UPLOAD, Row.STEADY, Row.EVENT_DELAY, Row.CONNECTIONS_RSS)),
    ],
)
