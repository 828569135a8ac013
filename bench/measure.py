"""The run: rounds of all contestants, started fresh and taking turns, each measured row by row."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from bench.client import Outcome
from bench.names import KNOWN, SMALL
from bench.plan import Plan
from bench.processes import (
    PATIENCE_SECONDS,
    BenchError,
    forget_peak,
    on_cpu,
    peak_rss_megabytes,
    rss_megabytes,
    settled_cpu_microseconds,
    stop,
    two_cpus,
)
from bench.proxies import VARIANTS, Contestant, Program, Proxy, running, takes_part
from bench.rows import Row, Unit
from bench.samples import Sample
from bench.upstream import Upstream
from bench.wire import Load, Tunnel, WrongAnswer, client_context

PARTS = frozenset({Row.WEBSOCKET, Row.EVENT_DELAY})  # rows whose operations are parts of one request

# Squid 5.7 resets many an upload by itself: what it needs for one that it completes is what counts.
UNSTEADY = frozenset({(Contestant.SQUID, Row.UPLOAD)})
TRIES = 4


@dataclass(frozen=True, slots=True)
class Measured:
    """One load: CPU time of the proxy's tree, the peak of its memory, and what the client has seen."""

    cpu_microseconds: float | None  # None where there is no proxy
    peak_megabytes: float
    outcome: Outcome


def rounds(folder: Path, upstream: Upstream, plan: Plan, tell: Callable[[str], None]) -> Iterator[Sample]:
    """
    Measure every row of every contestant, *plan.rounds* times.

    Args:
        folder: For what the proxies write.
        tell: Hears what is being measured.

    Raises:
        BenchError: A wrong answer, a request that wasn't recorded, a program that ended.
    """
    cpu, _ = two_cpus()
    for number in range(plan.rounds):
        turns, say = plan.turns(number), f"round {number + 1} of {plan.rounds}"
        with ExitStack() as stack:
            proxies: dict[Program, Proxy] = {}
            done: Counter[Program] = Counter()
            programs: list[Program] = [*turns, *(program for row, program in VARIANTS.items() if plan.has(row))]
            for program in programs:
                tell(f"{say}: start of {program}")
                place = folder / f"{number}-{program}".replace(", ", "-")
                proxies[program] = stack.enter_context(running(program, place, upstream, cpu, number=number))
                took = first_answer(proxies[program], upstream)
                done[program] += 1
                yield from (s for s in started(program, proxies[program], took) if plan.has(s.row))
            for row in plan.loads():
                for contestant in (c for c in turns if takes_part(c, row) and (c, row) not in plan.without):
                    tell(f"{say}: {row.label}, {contestant}")
                    program = VARIANTS.get(row, contestant)
                    load = plan.load(upstream, proxies[program], row, number)
                    measured = _tried(load, proxies[program], TRIES if (contestant, row) in UNSTEADY else 1)
                    if measured is None:
                        continue
                    done[program] += requests(row, measured.outcome)
                    yield from (s for s in samples(row, contestant, measured, load) if plan.has(s.row))
            for program, count in done.items():
                proxies[program].check_events(count)


def _tried(load: Load, proxy: Proxy, tries: int) -> Measured | None:
    """The first of some tries that succeeds; None if none does. Where there is but one, its error is the run's."""
    if tries == 1:
        return under_load(load, proxy)
    for _ in range(tries):
        try:
            return under_load(load, proxy)
        except BenchError:
            continue
    return None


def first_answer(proxy: Proxy, upstream: Upstream) -> float:
    """Milliseconds from the start of a proxy to its first answer."""
    load = Plan().load(upstream, proxy, Row.START)
    try:
        tunnel = Tunnel(load, client_context(load.ca_file), KNOWN)
        tunnel.socket.sendall(tunnel.request(SMALL))
        tunnel.small()
    except (WrongAnswer, OSError) as e:
        raise proxy.error(f"no first answer: {e!r}") from None
    tunnel.close()
    return (time.perf_counter() - proxy.started) * 1000


def started(program: Program, proxy: Proxy, milliseconds: float) -> Iterator[Sample]:
    """What can be said of a proxy that has answered once."""
    if isinstance(program, Contestant) and proxy.pid is not None:
        yield Sample(row=Row.START, contestant=program, value=milliseconds)
        settled_cpu_microseconds(proxy.pid)
        yield Sample(row=Row.IDLE_RSS, contestant=program, value=rss_megabytes(proxy.pid))


def samples(row: Row, contestant: Contestant, measured: Measured, load: Load) -> Iterator[Sample]:
    """The numbers that one load gives."""
    outcome, cpu = measured.outcome, measured.cpu_microseconds
    per_second = (load.megabytes or outcome.operations) / outcome.seconds
    value: float | None
    match row.unit:
        case Unit.CPU_SECONDS:
            value = None if cpu is None else cpu / 1e6
        case Unit.DELAY:
            value = outcome.p50_ms
        case _:
            value = None if cpu is None else cpu / outcome.operations
    yield Sample(
        row=row,
        contestant=contestant,
        value=value,
        per_second=per_second,
        p50_ms=outcome.p50_ms,
        p99_ms=outcome.p99_ms,
        p999_ms=outcome.p999_ms,
    )
    if row is Row.DOWNLOAD:
        yield Sample(row=Row.FIRST_BYTE, contestant=contestant, value=outcome.p50_ms)
        if cpu is not None:
            yield Sample(row=Row.PEAK_RSS, contestant=contestant, value=measured.peak_megabytes)


def requests(row: Row, outcome: Outcome) -> int:
    """How many requests a load has made; each has to be recorded."""
    if row is Row.PASSTHROUGH:
        return 0  # which nobody has seen
    return 1 if row in PARTS else outcome.operations + outcome.warm_up


def under_load(load: Load, proxy: Proxy, inside: Sequence[str] = ()) -> Measured:
    """Run a client against *proxy*; *inside* starts it in another network namespace."""
    with client(load, proxy, inside) as process:
        if proxy.pid is None:
            return Measured(None, 0.0, go(process, proxy))
        before = settled_cpu_microseconds(proxy.pid)
        forget_peak(proxy.pid)
        outcome = go(process, proxy)
        used = settled_cpu_microseconds(proxy.pid) - before
        return Measured(used, peak_rss_megabytes(proxy.pid), outcome)


@contextmanager
def client(load: Load, proxy: Proxy, inside: Sequence[str] = ()) -> Iterator[subprocess.Popen[str]]:
    """A client that has warmed up and waits; what it holds open it holds until the end."""
    _, cpu = two_cpus()
    with on_cpu(cpu):
        process = subprocess.Popen(
            [*inside, sys.executable, "-m", "bench.client", json.dumps(asdict(load))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
    try:
        assert process.stdout is not None
        if process.stdout.readline() != "ready\n":
            raise proxy.error(f"the client failed at {proxy.name} while it warmed up: {load.row}")
        yield process
    finally:
        stop(process)


def go(process: subprocess.Popen[str], proxy: Proxy) -> Outcome:
    """
    Let a client go, and wait for what it has done.

    Raises:
        BenchError: It failed: a wrong answer, or none.
    """
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write("go\n")
    process.stdin.flush()
    line = process.stdout.readline()
    if not line:
        raise proxy.error(f"the client failed at {proxy.name}; what it said stands above")
    return Outcome(**json.loads(line))


def profile(folder: Path, upstream: Upstream, plan: Plan, row: Row) -> Path:
    """Run *row* against a sidecar under `bench.profiled`; gives its file, of the measured part alone."""
    file = folder / "profile"
    cpu, _ = two_cpus()
    with running(Contestant.SIDECAR, folder / "sidecar", upstream, cpu, profile=file) as proxy:
        assert proxy.pid is not None
        with client(plan.load(upstream, proxy, row), proxy) as process:
            os.kill(proxy.pid, signal.SIGUSR1)
            go(process, proxy)
        os.kill(proxy.pid, signal.SIGUSR2)
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not file.exists():
            if time.monotonic() > deadline:
                raise proxy.error("the sidecar wrote no profile")
            time.sleep(0.05)
    return file
