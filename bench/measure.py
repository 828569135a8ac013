"""The run: rounds of both contestants, started fresh and taking turns, each measured row by row."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from itertools import product
from pathlib import Path

from bench.client import Load, Outcome
from bench.processes import (
    PATIENCE_SECONDS,
    on_cpu,
    rss_megabytes,
    settled_cpu_microseconds,
    stop,
    two_cpus,
)
from bench.proxies import Contestant, Proxy, running
from bench.results import Sample
from bench.rows import Row
from bench.upstream import Upstream


def rounds(
    folder: Path, upstream: Upstream, rows: Sequence[Row], count: int, seconds: float, tell: Callable[[str], None]
) -> Iterator[Sample]:
    """
    Measure every row of every contestant *count* times.

    Args:
        folder: For what the proxies write.
        seconds: Of load, for each row of each round.
        tell: Hears what is being measured.

    Raises:
        BenchError: A wrong answer, a request that wasn't recorded, a program that ended.
    """
    proxy_cpu, _ = two_cpus()
    for number in range(count):
        # Turns change, so that neither always has the machine as the other has left it.
        turns = list(Contestant) if number % 2 == 0 else list(reversed(Contestant))
        with ExitStack() as stack:
            proxies = {c: stack.enter_context(running(c, folder / f"{c}-{number}", upstream, proxy_cpu)) for c in turns}
            done = dict.fromkeys(turns, 0)
            for row, contestant in product(rows, turns):
                tell(f"round {number + 1} of {count}: {row.label}, {contestant}")
                proxy = proxies[contestant]
                if not row.is_load:
                    settled_cpu_microseconds(proxy.pid)
                    yield Sample(row=row, contestant=contestant, value=rss_megabytes(proxy.pid))
                    continue
                sample, outcome = _under_load(proxy, upstream, contestant, row, seconds)
                done[contestant] += outcome.operations + outcome.warm_up
                yield sample
            for contestant, operations in done.items():
                proxies[contestant].check_events(operations)


def profile(folder: Path, upstream: Upstream, row: Row, seconds: float) -> Path:
    """Run *row* against a sidecar under `bench.profiled`; gives its file, of the measured part alone."""
    file = folder / "profile"
    proxy_cpu, _ = two_cpus()
    with running(Contestant.SIDECAR, folder / "sidecar", upstream, proxy_cpu, profile=file) as proxy:
        with _client(proxy, upstream, row, seconds) as client:
            os.kill(proxy.pid, signal.SIGUSR1)
            _run(client, proxy)
        os.kill(proxy.pid, signal.SIGUSR2)
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not file.exists():
            if time.monotonic() > deadline:
                raise proxy.error("the sidecar wrote no profile")
            time.sleep(0.05)
    return file


def _under_load(
    proxy: Proxy, upstream: Upstream, contestant: Contestant, row: Row, seconds: float
) -> tuple[Sample, Outcome]:
    with _client(proxy, upstream, row, seconds) as client:
        before = settled_cpu_microseconds(proxy.pid)
        outcome = _run(client, proxy)
        used = settled_cpu_microseconds(proxy.pid) - before
    sample = Sample(
        row=row,
        contestant=contestant,
        value=used / outcome.operations,
        operations=outcome.operations,
        per_second=outcome.operations / outcome.seconds,
        p50_ms=outcome.p50_ms,
    )
    return sample, outcome


@contextmanager
def _client(proxy: Proxy, upstream: Upstream, row: Row, seconds: float) -> Iterator[subprocess.Popen[str]]:
    """A client that has warmed up and waits."""
    load = Load(
        row=row,
        proxy_port=proxy.port,
        upstream_port=upstream.port,
        ca_file=str(proxy.ca_file),
        seconds=seconds,
    )
    _, cpu = two_cpus()
    with on_cpu(cpu):
        client = subprocess.Popen(
            [sys.executable, "-m", "bench.client", json.dumps(asdict(load))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
    try:
        assert client.stdout is not None
        if client.stdout.readline() != "ready\n":
            raise proxy.error(f"the client failed while it warmed up: {row}")
        yield client
    finally:
        stop(client)


def _run(client: subprocess.Popen[str], proxy: Proxy) -> Outcome:
    """
    Let a client go, and wait for what it has done.

    Raises:
        BenchError: It failed: a wrong answer, or none.
    """
    assert client.stdin is not None and client.stdout is not None
    client.stdin.write("go\n")
    client.stdin.flush()
    line = client.stdout.readline()
    if not line:
        raise proxy.error("the client failed; what it said stands above")
    return Outcome(**json.loads(line))
