"""``python -m bench``: run the comparison, print its table, write ``bench/results/latest.json``."""

import json
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from bench import measure
from bench.processes import BenchError, two_cpus
from bench.profiles import parse_profile, tables
from bench.report import table
from bench.results import cells, document
from bench.rows import Row
from bench.upstream import serving

LATEST = Path(__file__).parent / "results" / "latest.json"


def main(
    rounds: Annotated[int, typer.Option(min=1, help="How often each row is measured; publish no less than 5.")] = 5,
    seconds: Annotated[float, typer.Option(min=0.1, help="Of load for each row of each round.")] = 2.0,
    only: Annotated[list[Row] | None, typer.Option(metavar="ROW", help="Measure this row. May be repeated.")] = None,
    profile: Annotated[
        bool, typer.Option("--profile", help="Say where the sidecar's time goes instead: keep-alive, or --only's rows.")
    ] = False,
) -> None:
    """CPU per operation of plain mitmdump and of the sidecar, side by side."""
    # The terminal's width where there is one; else wide enough for the names of functions.
    console = Console() if sys.stdout.isatty() else Console(width=130)
    status = Console(stderr=True)
    _, load_cpu = two_cpus()
    if load_cpu is None:
        status.print("one CPU only: proxy, client and upstream share it, and disturb each other")
    with (
        tempfile.TemporaryDirectory(prefix="bench-") as name,
        serving(Path(name, "upstream"), load_cpu) as upstream,
        status.status("starting") as line,
    ):
        if profile:
            for row in only or [Row.KEEP_ALIVE]:
                if not row.is_load:
                    raise typer.BadParameter(f"{row} has nothing to profile", param_hint="--only")
                line.update(f"profiling {row.label}")
                folder = Path(name, row)
                folder.mkdir()
                file = measure.profile(folder, upstream, row, seconds)
                console.rule(row.label)
                console.print(*tables(parse_profile(file.read_text())))
            return
        # In the order of Row but for memory, which has to be measured before any load.
        rows = sorted(only or Row, key=lambda row: row.is_load)
        samples = list(measure.rounds(Path(name), upstream, rows, rounds, seconds, line.update))
        server = upstream.server
    console.print(table(cells(samples)))
    if only:
        return  # a part of the table shall not replace the whole
    made = document(samples, upstream=server, rounds=rounds, seconds=seconds, pinned=load_cpu is not None)
    LATEST.parent.mkdir(exist_ok=True)
    LATEST.write_text(json.dumps(made, indent=2, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    try:
        typer.run(main)
    except BenchError as e:
        sys.exit(f"bench: {e}")
