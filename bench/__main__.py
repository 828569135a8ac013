"""``python -m bench``: run the comparison, print its table and verdict, write ``bench/results/``."""

import json
import sys
import tempfile
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from bench import measure, memory, transparent, verdict
from bench.plan import ONCE, QUICK, Plan
from bench.processes import BenchError, two_cpus
from bench.profiles import parse_profile, tables
from bench.proxies import Contestant, compile_sidecar
from bench.report import table
from bench.results import LATEST, cells, document
from bench.rows import Row
from bench.upstream import serving

PROFILED = (Row.KEEP_ALIVE, Row.NEW_CONNECTION, Row.DOWNLOAD)


def main(
    quick: Annotated[bool, typer.Option("--quick", help="What the verdict needs, in less than three minutes.")] = False,
    rounds: Annotated[
        int | None, typer.Option(min=1, help="How often each row is measured; 5, 3 with --quick.")
    ] = None,
    seconds: Annotated[float | None, typer.Option(min=0.1, help="Of load for each row of each round.")] = None,
    only: Annotated[list[Row] | None, typer.Option(metavar="ROW", help="Measure this row. May be repeated.")] = None,
    contestant: Annotated[
        list[Contestant] | None, typer.Option(metavar="NAME", help="Measure this one. May be repeated.")
    ] = None,
    scale: Annotated[float, typer.Option(min=0.001, max=1, help="Of bodies, connections and requests.")] = 1.0,
    profile: Annotated[
        bool, typer.Option("--profile", help="Say where the sidecar's time goes instead, in --only's rows.")
    ] = False,
    output: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the JSON here.")] = None,
) -> None:
    """CPU per operation, latency and memory of the sidecar beside its peers, in one interleaved run."""
    plan = QUICK if quick else Plan()
    plan = replace(
        plan,
        rows=only or plan.rows,
        contestants=contestant or plan.contestants,
        rounds=rounds or plan.rounds,
        seconds=seconds or plan.seconds,
        down_megabytes=plan.down_megabytes * scale,
        up_megabytes=plan.up_megabytes * scale,
        connections=max(1, round(plan.connections * scale)),
        requests=max(1, round(plan.requests * scale)),
    )
    # The terminal's width where there is one; else wide enough for all columns.
    console = Console() if sys.stdout.isatty() else Console(width=170)
    status = Console(stderr=True)
    _, load_cpu = two_cpus()
    if load_cpu is None:
        status.print("one CPU only: proxy, client and upstream share it, and disturb each other")
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder = Path(name)
        folder.chmod(0o711)  # Squid runs as another user
        compile_sidecar()
        with serving(folder / "upstream", load_cpu) as upstream, status.status("starting") as line:
            if profile:
                for row in only or PROFILED:
                    line.update(f"profiling {row.label}")
                    place = folder / row
                    place.mkdir()
                    file = measure.profile(place, upstream, plan, row)
                    console.rule(row.label)
                    console.print(*tables(parse_profile(file.read_text())))
                return
            parts = [measure.rounds(folder, upstream, plan, line.update)]
            if plan.has(Row.TRANSPARENT):
                if transparent.possible():
                    parts.append(transparent.redirected(folder, plan, line.update))
                else:
                    status.print(f"not measured, it needs root, ip, nft and setpriv: {Row.TRANSPARENT.label}")
            if set(plan.rows) & ONCE:
                parts.append(memory.once(folder, upstream, plan, line.update))
            samples = list(chain.from_iterable(parts))
            server = upstream.server
    of = cells(samples)
    console.print(table(of))
    made = document(samples, plan, upstream=server, pinned=load_cpu is not None)
    whole = not (quick or only or contestant or scale < 1)  # a part of the table shall not replace the whole
    if output or whole:
        file = output or LATEST
        file.parent.mkdir(exist_ok=True)
        file.write_text(json.dumps(made, indent=2, ensure_ascii=False) + "\n")
    if only or contestant:
        return
    console.print(verdict.table(of))
    text, holds = verdict.last_line(of)
    print(text)
    if quick and not holds:
        raise typer.Exit(1)


if __name__ == "__main__":
    try:
        typer.run(main)
    except BenchError as e:
        sys.exit(f"bench: {e}")
