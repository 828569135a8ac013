"""What people read: the table of the comparison, and where a profile says the time goes."""

import pstats
from collections.abc import Mapping
from pathlib import Path

from rich.table import Table

from bench.proxies import Contestant
from bench.results import Cell, ratio
from bench.rows import Row

type Timings = Mapping[tuple[str, int, str], tuple[int, int, float, float, object]]  # as pstats keeps them

TOP = 25


def table(rows: Mapping[Row, Mapping[Contestant, Cell]]) -> Table:
    """Medians with their range, and how many times cheaper the sidecar is."""
    made = Table(title="CPU of the whole process tree per operation, medians of the rounds", title_justify="left")
    made.add_column("")
    made.add_column("unit")
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


def profile_tables(file: Path) -> tuple[Table, Table]:
    """Time by package, and the `TOP` functions by their own time."""
    stats = pstats.Stats(str(file))
    timings: Timings = stats.stats  # type: ignore[attr-defined]
    total = sum(timing[2] for timing in timings.values())

    packages = Table(title="own time by package", title_justify="left")
    for name in ("package", "own time", "calls"):
        packages.add_column(name, justify="left" if name == "package" else "right")
    for package, (calls, own) in by_package(timings).items():
        packages.add_row(package, f"{own / total:.1%}", f"{calls:,}")

    functions = Table(title=f"top {TOP} by own time", title_justify="left")
    for name in ("own time", "with callees", "calls", "µs each", "function"):
        functions.add_column(name, justify="left" if name == "function" else "right")
    for key, (_, calls, own, cumulative, _) in sorted(timings.items(), key=lambda item: -item[1][2])[:TOP]:
        each = f"{own / calls * 1e6:,.1f}"
        functions.add_row(f"{own / total:.1%}", f"{cumulative / total:.1%}", f"{calls:,}", each, function_name(*key))
    return packages, functions


def by_package(timings: Timings) -> dict[str, tuple[int, float]]:
    """Calls and own seconds of each package, the dearest first."""
    sums: dict[str, tuple[int, float]] = {}
    for (file, _, _), (_, calls, own, _, _) in timings.items():
        package = package_of(file)
        before = sums.get(package, (0, 0.0))
        sums[package] = (before[0] + calls, before[1] + own)
    return dict(sorted(sums.items(), key=lambda item: -item[1][1]))


def package_of(file: str) -> str:
    """``sidecar``, ``mitmproxy``, …; ``built-in`` for what has no file, ``python`` for the standard library."""
    parts = Path(file).parts
    if "site-packages" in parts:
        return parts[parts.index("site-packages") + 1].removesuffix(".py")
    if not file.endswith(".py"):
        return "built-in"
    for own in ("sidecar", "addons", "bench"):
        if own in parts:
            return own
    return "python"


def function_name(file: str, line: int, function: str) -> str:
    """``mitmproxy/proxy/layer.py:12 handle``: the file from its package on, no path of this machine."""
    package = package_of(file)
    if package == "built-in":
        return function
    parts = Path(file).parts
    if package in parts:
        start = len(parts) - 1 - tuple(reversed(parts)).index(package)
        return f"{'/'.join(parts[start:])}:{line} {function}"
    return f"{'/'.join(parts[-2:])}:{line} {function}"
