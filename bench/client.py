"""
The load client, a process of its own: ``python -m bench.client JSON``.

It connects and warms up, writes ``ready``, waits for a line, runs the measured part and writes an `Outcome` as JSON;
what it holds open it holds until it is ended. Every answer is checked; a wrong one ends it with an error.
"""

import gc
import json
import sys
import time
from dataclasses import asdict, dataclass

from bench.loads import Over, prepare, warm_up
from bench.rows import Row
from bench.wire import Load, WrongAnswer


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What was done in the measured part, and how long each operation took."""

    operations: int
    seconds: float
    p50_ms: float
    p99_ms: float
    p999_ms: float
    warm_up: int  # operations before it


def times(count: int) -> Over:
    """Over after so many."""
    left = iter(range(count))
    return lambda: next(left, None) is None


def until(deadline: float) -> Over:
    return lambda: time.perf_counter() > deadline


def quantile(ordered: list[float], share: float) -> float:
    """The smallest value that *share* of all don't exceed, by the nearest rank."""
    return ordered[max(0, -(-len(ordered) * round(share * 1000) // 1000) - 1)]


def main(load: Load) -> Outcome:
    """Warm up, say so, wait for the word, run."""
    run = prepare(load)
    warm = sum(1 for _ in run(times(warm_up(load.row)))) if warm_up(load.row) else 0
    gc.freeze()
    print("ready", flush=True)
    sys.stdin.readline()
    start = time.perf_counter()
    took = sorted(run(times(load.requests) if load.requests else until(start + load.seconds)))
    seconds = time.perf_counter() - start
    p50, p99, p999 = (round(quantile(took, share) * 1000, 3) for share in (0.5, 0.99, 0.999))
    return Outcome(operations=len(took), seconds=round(seconds, 4), p50_ms=p50, p99_ms=p99, p999_ms=p999, warm_up=warm)


if __name__ == "__main__":
    fields = json.loads(sys.argv[1])
    try:
        print(json.dumps(asdict(main(Load(**fields | {"row": Row(fields["row"])})))), flush=True)
        sys.stdin.readline()  # what is held open is held until the other side is done
    except (WrongAnswer, OSError) as e:
        sys.exit(f"bench.client: {fields['row']}: {e!r}")
