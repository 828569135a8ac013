"""One measured number."""

from dataclasses import dataclass

from bench.proxies import Contestant
from bench.rows import Row


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One row of one contestant in one round, in the row's unit; None where no proxy has it."""

    row: Row
    contestant: Contestant
    value: float | None
    per_second: float | None = None
    p50_ms: float | None = None
    p99_ms: float | None = None
    p999_ms: float | None = None
