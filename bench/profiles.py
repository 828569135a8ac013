"""A profile as people read it: where the time goes, by package and by function, and what of it is our own code's."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.table import Table

TOP = 25
OURS = ("sidecar", "addons")


@dataclass(frozen=True, slots=True)
class Function:
    """Samples of one function."""

    file: str
    line: int
    name: str
    own: int  # in itself, and in C code that it calls
    inside: int  # in itself and in all that it calls

    @property
    def package(self) -> str:
        """``sidecar``, ``mitmproxy``, …; ``python`` for the standard library."""
        parts = Path(self.file).parts
        if "site-packages" in parts:
            return parts[parts.index("site-packages") + 1].removesuffix(".py")
        return next((ours for ours in (*OURS, "bench") if ours in parts[:-1]), "python")

    def __str__(self) -> str:
        """``mitmproxy/proxy/layer.py:12 Layer.handle_event``: from the package on, no path of this machine."""
        parts = Path(self.file).parts
        if self.package in parts[:-1]:
            start = len(parts) - 1 - parts[::-1].index(self.package)
            return f"{'/'.join(parts[start:])}:{self.line} {self.name}"
        return f"{'/'.join(parts[-2:])}:{self.line} {self.name}"


def parse_profile(text: str) -> list[Function]:
    """What `bench.profiled` has written."""
    return [Function(*fields) for fields in json.loads(text)]


def by_package(functions: Iterable[Function]) -> dict[str, int]:
    """Samples in each package's own functions, most first."""
    sums: dict[str, int] = {}
    for function in functions:
        sums[function.package] = sums.get(function.package, 0) + function.own
    return dict(sorted(sums.items(), key=lambda item: -item[1]))


def tables(functions: Sequence[Function]) -> tuple[Table, Table, Table]:
    """By package; the `TOP` functions by their own time; those of our own by theirs and their callees'."""
    total = sum(function.own for function in functions) or 1
    packages = Table("package", title=f"by package, {total:,} samples", title_justify="left", min_width=40)
    packages.add_column("own time", justify="right")
    for package, own in by_package(functions).items():
        packages.add_row(package, f"{own / total:.1%}")
    top = sorted(functions, key=lambda function: -function.own)[:TOP]
    ours = sorted((f for f in functions if f.package in OURS), key=lambda function: -function.inside)[:TOP]
    return packages, _table("top by own time", top, total), _table("our own, by time with callees", ours, total)


def _table(title: str, functions: Iterable[Function], total: int) -> Table:
    made = Table(title=title, title_justify="left")
    made.add_column("own time", justify="right")
    made.add_column("with callees", justify="right")
    made.add_column("function", no_wrap=True)
    for function in functions:
        made.add_row(f"{function.own / total:.1%}", f"{function.inside / total:.1%}", str(function))
    return made
