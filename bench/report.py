"""The table of the comparison, as people read it."""

from rich.table import Table

from bench.proxies import Contestant, takes_part
from bench.results import Cells, ratio
from bench.rows import Row, Unit


def table(of: Cells) -> Table:
    """Medians, and how many times cheaper the sidecar is than two of its peers."""
    made = Table("", "unit", title="medians; CPU of the whole process tree, per operation", title_justify="left")
    for contestant in Contestant:
        made.add_column(contestant, justify="right")
    made.add_column("× mitmdump", justify="right")
    made.add_column("× squid", justify="right")
    for row in of:
        columns = [cell_text(of, row, contestant) for contestant in Contestant]
        made.add_row(
            row.label, row.unit, *columns, *(times(of, row, c) for c in (Contestant.MITMDUMP, Contestant.SQUID))
        )
    return made


def cell_text(of: Cells, row: Row, contestant: Contestant) -> str:
    """The median; empty where the row isn't about this contestant, – where it can't do it."""
    one = of[row].get(contestant)
    if one is None or one.median is None:
        return "" if takes_part(contestant, row) or row is not row.against else "–"
    return number(one.median, row.unit)


def times(of: Cells, row: Row, peer: Contestant) -> str:
    found = ratio(of, row, peer)
    return "" if found is None else f"{found:.2f}x"


def number(value: float, unit: Unit) -> str:
    """As many digits as mean something."""
    return f"{value:,.{0 if abs(value) >= 100 or unit is Unit.CPU else 1 if abs(value) >= 10 else 2}f}"


def span(least: float | None, most: float | None, unit: Unit) -> str:
    return "" if least is None or most is None else f"{number(least, unit)}–{number(most, unit)}"
