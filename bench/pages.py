"""``python -m bench.pages``: what ``results/latest.json`` says, in docs/performance.md, README.md and the plots."""

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from bench import verdict
from bench.plots import plots
from bench.proxies import Contestant
from bench.report import cell_text, number, times
from bench.results import LATEST, Cells, from_document
from bench.rows import Row

ROOT: Final = Path(__file__).parents[1]
BEGIN, END = "<!-- bench: by `python -m bench.pages` -->", "<!-- bench: end -->"
SHORT: Final = (Row.KEEP_ALIVE, Row.HTTP2, Row.NEW_CONNECTION, Row.FIRST_CONTACT, Row.DOWNLOAD, Row.IDLE_RSS)
SHORT_OF: Final = (Contestant.MITMDUMP, Contestant.SQUID, Contestant.SIDECAR)


def whole(made: Mapping[str, Any]) -> str:
    """Conditions, all rows, latencies, and the verdict."""
    of = from_document(made)
    versions = ", ".join(f"{name} {value}" for name, value in made["versions"].items())
    machine, conditions = made["machine"], made["conditions"]
    where = f"{machine['cpu']}, {machine['cores']} cores, Linux {machine['kernel']}"
    sizes = f"{conditions['down_megabytes']:,.0f} MB down, {conditions['up_megabytes']:,.0f} MB up"
    sizes += f", {conditions['connections']:,} connections, {conditions['requests']:,} requests"
    how = f"medians of {conditions['rounds']} rounds of {conditions['seconds']:g} s, {conditions['rules']} rules"
    peers = (Contestant.MITMDUMP, Contestant.SQUID)
    numbers = [
        [row.label, row.unit, *(cell_text(of, row, c) for c in Contestant), *(times(of, row, c) for c in peers)]
        for row in of
    ]
    found = [[f.target.name, *verdict.words(f)] for f in verdict.findings(of)]
    return "\n\n".join(
        [
            f"{made['date'][:10]}, {where}; {how}; {sizes}.\n\n{versions}.",
            markdown(["", "unit", *map(str, Contestant), "× mitmdump", "× squid"], numbers),
            "Rates and latencies, in operations (or MB) per second and ms:",
            markdown(["", "", "per second", "p50", "p99", "p99.9"], latencies(of)),
            "What was asked for:",
            markdown(["", "figure", "target", ""], found),
        ]
    )


def latencies(of: Cells) -> Iterable[list[str]]:
    for row, contestants in of.items():
        for contestant, one in contestants.items():
            if one.per_second is None or one.p50_ms is None:
                continue
            of_row = [one.per_second, one.p50_ms, one.p99_ms, one.p999_ms]
            yield [row.label, contestant, *("" if n is None else number(n, row.unit.DELAY) for n in of_row)]


def short(made: Mapping[str, Any]) -> str:
    of = from_document(made)
    rows = [
        [f"{row.label}, {row.unit}", *(cell_text(of, row, c) for c in SHORT_OF)]
        + [times(of, row, c) for c in SHORT_OF if c is not Contestant.SIDECAR]
        for row in SHORT
        if row in of
    ]
    return markdown(["", *map(str, SHORT_OF), "× mitmdump", "× squid"], rows)


def markdown(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    head = list(head)
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


PAGES: Final[Mapping[str, Callable[[Mapping[str, Any]], str]]] = {"docs/performance.md": whole, "README.md": short}


def filled(text: str, part: str) -> str:
    """
    *text* with *part* between its markers.

    Raises:
        ValueError: It has none.
    """
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"no {BEGIN} … {END}")
    return f"{before}{BEGIN}\n{part}\n{END}{after}"


def main() -> None:
    made = json.loads(LATEST.read_text())
    for name, write in PAGES.items():
        page = ROOT / name
        page.write_text(filled(page.read_text(), write(made)))
    for name, text in plots(from_document(made)).items():
        (LATEST.parent / name).write_text(text)


if __name__ == "__main__":
    main()
