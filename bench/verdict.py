"""The verdict: what was asked of the sidecar beside its peers, and whether it holds."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from rich.table import Table

from bench.proxies import Contestant
from bench.results import Cells, ratio
from bench.rows import Row

MITMDUMP, SQUID = Contestant.MITMDUMP, Contestant.SQUID


@dataclass(frozen=True, slots=True)
class Target:
    """One promise. *binding* ones decide `bench-quick`'s exit code."""

    name: str
    figure: Callable[[Cells], float | None]  # None: it wasn't measured
    limit: float
    at_least: bool
    unit: str
    binding: bool


@dataclass(frozen=True, slots=True)
class Finding:
    target: Target
    figure: float | None

    @property
    def met(self) -> bool | None:
        if self.figure is None:
            return None
        # A figure counts as it is printed: 2.496 is 2.50.
        figure = round(self.figure, 2)
        return figure >= self.target.limit if self.target.at_least else figure <= self.target.limit


def _cheaper(name: str, row: Row, peer: Contestant, limit: float) -> Target:
    return Target(f"{name}, against {peer}", lambda of: ratio(of, row, peer), limit, True, "x", True)


def median(of: Cells, row: Row, contestant: Contestant = Contestant.SIDECAR) -> float | None:
    one = of.get(row, {}).get(contestant)
    return one.median if one else None


def _share(row: Row, of_row: Row, of_contestant: Contestant) -> Callable[[Cells], float | None]:
    def figure(of: Cells) -> float | None:
        ours, theirs = median(of, row), median(of, of_row, of_contestant)
        return None if ours is None or not theirs else ours / theirs

    return figure


def _added(row: Row) -> Callable[[Cells], float | None]:
    def figure(of: Cells) -> float | None:
        ours, direct = median(of, row), median(of, row, Contestant.DIRECT)
        return None if ours is None or direct is None else ours - direct

    return figure


def _steady(of: Cells) -> float | None:
    ours, theirs = (of.get(Row.STEADY, {}).get(c) for c in (Contestant.SIDECAR, MITMDUMP))
    if ours is None or theirs is None or ours.p50_ms is None or not theirs.p50_ms:
        return None
    return ours.p50_ms / theirs.p50_ms


def _at_most(
    name: str, figure: Callable[[Cells], float | None], limit: float, unit: str = "x", *, binding: bool = False
) -> Target:
    return Target(name, figure, limit, False, unit, binding)


TARGETS = (
    _cheaper("keep-alive", Row.KEEP_ALIVE, MITMDUMP, 2.5),
    _cheaper("HTTP/2, 100 streams", Row.HTTP2, MITMDUMP, 2.5),
    _cheaper("new TLS connection, pooled upstream", Row.NEW_CONNECTION, MITMDUMP, 3.0),
    _cheaper("new TLS connection, pooled upstream", Row.NEW_CONNECTION, SQUID, 1.3),
    _cheaper("new TLS connection, not pooled", Row.UNPOOLED, MITMDUMP, 2.2),
    _cheaper("new TLS connection, not pooled", Row.UNPOOLED, SQUID, 0.9),
    _cheaper("first contact with a host", Row.FIRST_CONTACT, MITMDUMP, 2.2),
    _cheaper("first contact with a host", Row.FIRST_CONTACT, SQUID, 0.85),
    _cheaper("1 GiB down", Row.DOWNLOAD, MITMDUMP, 3.5),
    _cheaper("1 GiB down", Row.DOWNLOAD, SQUID, 1.8),
    _cheaper("500 MB up", Row.UPLOAD, MITMDUMP, 4.0),
    _at_most("first byte of a stream, added", _added(Row.FIRST_BYTE), 10.0, "ms"),
    _at_most("delay of an event, added", _added(Row.EVENT_DELAY), 10.0, "ms"),
    _at_most("p50 at 150 requests/s, of mitmdump's", _steady, 1.0),
    _at_most("RSS peak in the download, of own idle", _share(Row.PEAK_RSS, Row.IDLE_RSS, Contestant.SIDECAR), 1.3),
    _at_most("RSS idle, of mitmdump's", _share(Row.IDLE_RSS, Row.IDLE_RSS, MITMDUMP), 1.0),
    _at_most(
        "RSS for 1,000 idle connections, of mitmdump's", _share(Row.CONNECTIONS_RSS, Row.CONNECTIONS_RSS, MITMDUMP), 0.8
    ),
    _at_most("start to first answer, of mitmdump's", _share(Row.START, Row.START, MITMDUMP), 0.7),
    _at_most("growth over 50,000 requests", lambda of: median(of, Row.GROWTH), 5.0, "MB"),
    _at_most("events and metrics on, of off", _share(Row.KEEP_ALIVE, Row.BARE, Contestant.SIDECAR), 1.15),
)


def findings(of: Cells) -> Iterator[Finding]:
    for target in TARGETS:
        yield Finding(target, target.figure(of))


def words(finding: Finding) -> tuple[str, str, str]:
    """Figure, target, and whether it's met, as they are printed."""
    target = finding.target
    space = "" if target.unit == "x" else " "
    figure = "–" if finding.figure is None else f"{finding.figure:.2f}{space}{target.unit}"
    said = {True: "met", False: "missed", None: "not measured"}[finding.met]
    return figure, f"{'≥' if target.at_least else '≤'} {target.limit:g}{space}{target.unit}", said


def table(of: Cells) -> Table:
    made = Table("", title="what was asked for", title_justify="left")
    for name in ("figure", "target", ""):
        made.add_column(name, justify="right")
    for finding in findings(of):
        made.add_row(finding.target.name, *words(finding))
    return made


def last_line(of: Cells) -> tuple[str, bool]:
    """One line, and whether no binding target is missed; one that wasn't measured counts as missed."""
    found = list(findings(of))
    missed = [f for f in found if not f.met]
    holds = not any(f.target.binding for f in missed)
    if not missed:
        return f"verdict: met, all {len(found)} targets", True
    names = "; ".join(f"{f.target.name} {words(f)[0]} ({words(f)[1]})" for f in missed)
    return (
        f"verdict: {'met' if holds else 'missed'}, {len(found) - len(missed)} of {len(found)} targets; not: {names}",
        holds,
    )
