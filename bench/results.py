"""What came out: medians and ratios of the rounds, with what they were measured on."""

import os
import platform
import ssl
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

from bench.proxies import RULES, Contestant
from bench.rows import Row


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One row of one contestant in one round, in the row's unit."""

    row: Row
    contestant: Contestant
    value: float
    operations: int = 0
    per_second: float = 0.0
    p50_ms: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """The rounds of one row and contestant as one."""

    median: float
    least: float
    most: float
    rounds: int
    per_second: float  # median of the rounds; 0 where nothing was asked for
    p50_ms: float


def cell(samples: Iterable[Sample]) -> Cell:
    """
    Medians of one row's samples of one contestant.

    Raises:
        statistics.StatisticsError: There are none.
    """
    samples = list(samples)
    values = [sample.value for sample in samples]
    return Cell(
        median=median(values),
        least=min(values),
        most=max(values),
        rounds=len(values),
        per_second=median(sample.per_second for sample in samples),
        p50_ms=median(sample.p50_ms for sample in samples),
    )


def cells(samples: Iterable[Sample]) -> dict[Row, dict[Contestant, Cell]]:
    """By row and contestant, in the order of `Row` and `Contestant`; only what was measured."""
    of: dict[Row, dict[Contestant, list[Sample]]] = {}
    for sample in samples:
        of.setdefault(sample.row, {}).setdefault(sample.contestant, []).append(sample)
    return {row: {c: cell(of[row][c]) for c in Contestant if c in of[row]} for row in Row if row in of}


def ratio(row: Mapping[Contestant, Cell]) -> float | None:
    """How many times cheaper the sidecar is than mitmdump; below 1 it is dearer. None if one wasn't measured."""
    stock, ours = row.get(Contestant.MITMDUMP), row.get(Contestant.SIDECAR)
    return stock.median / ours.median if stock and ours and ours.median else None


def document(samples: Iterable[Sample], *, upstream: str, rounds: int, seconds: float, pinned: bool) -> dict[str, Any]:
    """What is written as JSON: no host name and no path is in it."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {"cpu": cpu_model(_text("/proc/cpuinfo")), "cores": os.cpu_count(), "kernel": platform.release()},
        "versions": {
            "sidecar": version("egress-sidecar"),
            "mitmproxy": version("mitmproxy"),
            "python": platform.python_version(),
            "cryptography": version("cryptography"),
            "uvloop": version("uvloop"),
            "openssl_of_client": ssl.OPENSSL_VERSION,
            "upstream": upstream,
        },
        "conditions": {"rounds": rounds, "seconds": seconds, "rules": RULES, "pinned": pinned, "events": "file"},
        "rows": {
            str(row): {
                "label": row.label,
                "unit": row.unit,
                "ratio": round(found, 2) if (found := ratio(of)) else None,
                **{str(contestant): _rounded(one) for contestant, one in of.items()},
            }
            for row, of in cells(samples).items()
        },
    }


def cpu_model(cpuinfo: str) -> str:
    """The first ``model name`` in the text of ``/proc/cpuinfo``; the architecture where there is none."""
    for line in cpuinfo.splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return platform.machine()


def _rounded(one: Cell) -> dict[str, float]:
    return {name: round(value, 3 if name == "p50_ms" else 1) for name, value in asdict(one).items()}


def _text(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""
