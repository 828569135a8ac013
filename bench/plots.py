"""Plots as SVG: for each row a block of bars, as long as their share of the longest. Text in, text out."""

from collections.abc import Mapping
from html import escape

from bench.proxies import Contestant
from bench.report import number
from bench.results import Cells
from bench.rows import Row, Unit

WIDTH, LEFT, BAR, GAP = 760, 150, 16, 22  # pixels
COLOURS = {Contestant.SIDECAR: "#0969da", Contestant.DIRECT: "#57606a"}
OTHER_COLOUR = "#afb8c1"
FILES: Mapping[str, tuple[str, frozenset[Unit]]] = {
    "cpu.svg": ("CPU per operation, µs", frozenset({Unit.CPU})),
    "bulk.svg": ("CPU for a large body, s", frozenset({Unit.CPU_SECONDS})),
    "delay.svg": ("Delays, ms", frozenset({Unit.DELAY})),
    "memory.svg": ("Resident memory, MB", frozenset({Unit.MEMORY})),
}


def plots(of: Cells) -> dict[str, str]:
    """The text of each file."""
    return {
        name: plot(title, {row: bars for row in of if row.unit in units and (bars := values(of, row))})
        for name, (title, units) in FILES.items()
    }


def values(of: Cells, row: Row) -> dict[Contestant, float]:
    """What has a length: a variant of the sidecar stands beside the peers of the row that it varies."""
    found = {c: one.median for c, one in {**of.get(row.against, {}), **of[row]}.items() if one.median is not None}
    return {c: found[c] for c in Contestant if c in found}


def plot(title: str, rows: Mapping[Row, Mapping[Contestant, float]]) -> str:
    """One file: *rows* below each other."""
    parts, y = [f'<text x="8" y="24" font-size="16" font-weight="bold">{escape(title)}</text>'], 52
    for row, bars in rows.items():
        parts.append(f'<text x="8" y="{y}" font-weight="bold">{escape(row.label)}</text>')
        y += 10
        longest = max((value for value in bars.values()), default=0.0)
        for contestant, value in bars.items():
            length = max(1.0, max(value, 0.0) / longest * (WIDTH - LEFT - 90)) if longest > 0 else 1.0
            colour = COLOURS.get(contestant, OTHER_COLOUR)
            parts += [
                f'<text x="{LEFT - 8}" y="{y + 12}" text-anchor="end">{escape(contestant)}</text>',
                f'<rect x="{LEFT}" y="{y}" width="{length:.1f}" height="{BAR}" fill="{colour}"/>',
                f'<text x="{LEFT + length + 6:.1f}" y="{y + 12}">{escape(number(value, row.unit))}</text>',
            ]
            y += GAP
        y += 22
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y}" font-family="sans-serif" font-size="12">'
    return "\n".join([head, f'<rect width="{WIDTH}" height="{y}" fill="white"/>', *parts, "</svg>"]) + "\n"
