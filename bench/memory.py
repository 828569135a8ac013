"""Memory that grows with connections and requests: in processes of their own, side by side, as no CPU is measured."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from bench.measure import client, first_answer, go
from bench.plan import Plan
from bench.processes import rss_megabytes, settled_cpu_microseconds
from bench.proxies import Contestant, running
from bench.rows import Row
from bench.samples import Sample
from bench.upstream import Upstream

PER = 1000  # connections
FIRST_REQUESTS = 2000  # before the growth is counted: caches are full then
AT_ONCE = 2


def once(folder: Path, upstream: Upstream, plan: Plan, tell: Callable[[str], None]) -> Iterator[Sample]:
    """One sample for each contestant of the rows that are measured once."""
    jobs = [(Row.CONNECTIONS_RSS, contestant) for contestant in plan.contestants if plan.has(Row.CONNECTIONS_RSS)]
    jobs += [(Row.GROWTH, contestant) for contestant in plan.growth_of if plan.has(Row.GROWTH)]
    jobs = [job for job in jobs if job[1] is not Contestant.DIRECT and job[::-1] not in plan.without]
    # The longest first: what is short fills the gaps.
    jobs.sort(key=lambda job: (job[0] is not Row.GROWTH, job[1] is not Contestant.MITMDUMP))

    def measured(job: tuple[Row, Contestant]) -> Sample:
        row, contestant = job
        tell(f"{row.label}, {contestant}, beside others")
        place = folder / f"{row}-{contestant}".replace(", ", "-")
        return Sample(row=row, contestant=contestant, value=more(place, upstream, plan, row, contestant))

    with ThreadPoolExecutor(AT_ONCE) as pool:
        yield from pool.map(measured, jobs)


def more(folder: Path, upstream: Upstream, plan: Plan, row: Row, contestant: Contestant) -> float:
    """Megabytes that a load adds to what was resident before."""
    with running(contestant, folder, upstream, None) as proxy:
        assert proxy.pid is not None
        first_answer(proxy, upstream)
        load = plan.load(upstream, proxy, row)
        if row is Row.GROWTH:
            with client(replace(load, requests=FIRST_REQUESTS), proxy) as process:
                go(process, proxy)
        settled_cpu_microseconds(proxy.pid)
        before = rss_megabytes(proxy.pid)
        count = plan.requests if row is Row.GROWTH else plan.connections
        with client(replace(load, requests=count), proxy) as process:
            outcome = go(process, proxy)
            settled_cpu_microseconds(proxy.pid)
            after = rss_megabytes(proxy.pid)
        growth = after - before
        proxy.check_events(1 + outcome.operations + (FIRST_REQUESTS if row is Row.GROWTH else 0))
    return growth if row is Row.GROWTH else growth * PER / count
