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

from bench import squid
from bench.plan import Plan
from bench.proxies import RULES, Contestant
from bench.rows import Row
from bench.samples import Sample

LATEST = Path(__file__).parent / "results" / "latest.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """The rounds of one row and contestant as one. Medians; None where there is no proxy, or no such thing."""

    median: float | None
    least: float | None
    most: float | None
    rounds: int
    per_second: float | None  # operations; megabytes of a bulk row
    p50_ms: float | None
    p99_ms: float | None
    p999_ms: float | None


type Cells = Mapping[Row, Mapping[Contestant, Cell]]


def cell(samples: Iterable[Sample]) -> Cell:
    """
    Medians of one row's samples of one contestant.

    Raises:
        ValueError: There are none.
    """
    samples = list(samples)
    if not samples:
        raise ValueError("no samples")
    values = [sample.value for sample in samples if sample.value is not None]

    def middle(name: str) -> float | None:
        numbers = [number for sample in samples if (number := getattr(sample, name)) is not None]
        return median(numbers) if numbers else None

    return Cell(
        median=middle("value"),
        least=min(values, default=None),
        most=max(values, default=None),
        rounds=len(samples),
        per_second=middle("per_second"),
        p50_ms=middle("p50_ms"),
        p99_ms=middle("p99_ms"),
        p999_ms=middle("p999_ms"),
    )


def cells(samples: Iterable[Sample]) -> dict[Row, dict[Contestant, Cell]]:
    """By row and contestant, in the order of `Row` and `Contestant`; only what was measured."""
    of: dict[Row, dict[Contestant, list[Sample]]] = {}
    for sample in samples:
        of.setdefault(sample.row, {}).setdefault(sample.contestant, []).append(sample)
    return {row: {c: cell(of[row][c]) for c in Contestant if c in of[row]} for row in Row if row in of}


def ratio(of: Cells, row: Row, peer: Contestant) -> float | None:
    """How many times cheaper the sidecar is than *peer*; below 1 it is dearer. None if one wasn't measured."""
    theirs, ours = of.get(row.against, {}).get(peer), of.get(row, {}).get(Contestant.SIDECAR)
    if theirs is None or ours is None or theirs.median is None or not ours.median or ours.median < 0:
        return None
    return theirs.median / ours.median


def document(samples: Iterable[Sample], plan: Plan, *, upstream: str, pinned: bool) -> dict[str, Any]:
    """What is written as JSON: no host name and no path is in it."""
    of = cells(samples)
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {"cpu": cpu_model(_text("/proc/cpuinfo")), "cores": os.cpu_count(), "kernel": platform.release()},
        "versions": {
            "sidecar": version("egress-sidecar"),
            "mitmproxy": version("mitmproxy"),
            "squid": squid.version(),
            "proxy.py": version("proxy.py"),
            "python": platform.python_version(),
            "cryptography": version("cryptography"),
            "uvloop": version("uvloop"),
            "openssl_of_client": ssl.OPENSSL_VERSION,
            "upstream": upstream,
        },
        "conditions": {
            "rounds": plan.rounds,
            "seconds": plan.seconds,
            "rules": RULES,
            "pinned": pinned,
            "events": "file",
            "metrics": "on",
            "down_megabytes": plan.down_megabytes,
            "up_megabytes": plan.up_megabytes,
            "connections": plan.connections,
            "requests": plan.requests,
        },
        "rows": {
            str(row): {
                "label": row.label,
                "unit": str(row.unit),
                "against_mitmdump": _rounded(ratio(of, row, Contestant.MITMDUMP)),
                "against_squid": _rounded(ratio(of, row, Contestant.SQUID)),
                **{
                    str(contestant): {name: _rounded(value, 3) for name, value in asdict(one).items()}
                    for contestant, one in of[row].items()
                },
            }
            for row in of
        },
    }


def from_document(made: Mapping[str, Any]) -> dict[Row, dict[Contestant, Cell]]:
    """The cells that a document was made of."""
    return {
        Row(row): {Contestant(name): Cell(**one) for name, one in of.items() if isinstance(one, dict)}
        for row, of in made["rows"].items()
    }


def cpu_model(cpuinfo: str) -> str:
    """The first ``model name`` in the text of ``/proc/cpuinfo``; the architecture where there is none."""
    for line in cpuinfo.splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return platform.machine()


def _rounded(number: float | None, digits: int = 2) -> float | None:
    return None if number is None else round(number, digits)


def _text(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""
