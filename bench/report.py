"""The table of the comparison, as people read it."""

from collections.abc import Mapping

from rich.table import Table

from bench.proxies import Contestant
from bench.results import Cell, ratio
from bench.rows import Row


def table(rows: Mapping[Row, Mapping[Contestant, Cell]]) -> Table:
    """Medians with their range, and how many times cheaper the sidecar is."""
    made = Table("", "unit", title="per operation, whole process tree: median (least–most)", title_justify="left")
    for contestant in Contestant:
        made.add_column(contestant, justify="right")
    made.add_column("ratio", justify="right")
    for row, of in rows.items():
        found = ratio(of)
        columns = [_text(of[contestant]) if contestant in of else "–" for contestant in Contestant]
        made.add_row(row.label, row.unit, *columns, f"{found:.2f}x" if found else "–")
    return made


def _text(one: Cell) -> str:
    return f"{one.median:,.0f} ({one.least:,.0f}–{one.most:,.0f})"
