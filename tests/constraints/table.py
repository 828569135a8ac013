"""The page docs/name-constraints.md, made from what the clients did."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.constraints.chains import ADDRESS, DENIED, HOSTS, PERMITTED, Place, Server
from tests.constraints.clients import Client, run

PAGE: Final = Path(__file__).parents[2] / "docs" / "name-constraints.md"
BEGIN: Final = "<!-- measured: python -m tests.constraints -->\n"
_COLUMNS: Final = (
    "| client | verified by | on the root | on an intermediate | with a `*` | version |\n|---|---|---|---|---|---|\n"
)
_VERSION: Final = re.compile(r"\d+(?:\.\d+)+")


@dataclass(frozen=True)
class Row:
    """What one client enforces; a cell is a list of kinds of names."""

    client: str
    library: str
    root: str
    intermediate: str
    starred: str
    version: str

    @property
    def verdict(self) -> tuple[str, ...]:
        """All but the version, which is another one on another machine."""
        return self.client, self.library, self.root, self.intermediate, self.starred

    def __str__(self) -> str:
        return f"| {' | '.join((*self.verdict, self.version))} |\n"


def measure(client: Client, servers: Mapping[tuple[Place, str], Server], folder: Path) -> Row:
    """
    Have one client shake hands with each server.

    Raises:
        AssertionError: It refuses what nothing speaks against, so that its refusals show nothing.
    """
    client.prepare(folder)
    accepted: dict[tuple[Place, str], bool] = {}
    for (place, host), server in servers.items():
        done = run(client.command(server, folder))
        accepted[place, host] = done.returncode == 0
        harmless = place is Place.NONE or (host == PERMITTED and place is not Place.STARRED)
        assert accepted[place, host] or not harmless, f"{client.name}, {place}, {host}: {done.stdout}{done.stderr}"
    enforced = {
        place: [kind for kind, host in (("names", DENIED), ("addresses", ADDRESS)) if not accepted[place, host]]
        for place in (Place.ROOT, Place.INTERMEDIATE)
    }
    shown = run(client.version)
    version = _VERSION.search(shown.stdout + shown.stderr)
    return Row(
        client.name,
        client.library,
        ", ".join(enforced[Place.ROOT]) or "**nothing**",
        ", ".join(enforced[Place.INTERMEDIATE]) or "**nothing**",
        ", ".join(f"{_KINDS[host]} {'accepted' if accepted[Place.STARRED, host] else 'refused'}" for host in HOSTS),
        version[0] if version else "",
    )


_KINDS: Final = {PERMITTED: "below it", DENIED: "others", ADDRESS: "addresses"}


def page(text: str, rows: Iterable[Row]) -> str:
    """*text* with the table in it replaced by one of *rows*."""
    head, _, rest = text.partition(BEGIN)
    _, _, tail = rest.partition("\n\n")
    return head + BEGIN + _COLUMNS + "".join(map(str, rows)) + "\n" + tail


def rows_of(text: str) -> dict[str, Row]:
    """The rows of a page, by client."""
    table = text.partition(BEGIN)[2].partition("\n\n")[0]
    lines = [line.strip("| ").split(" | ") for line in table.splitlines()[2:]]
    return {cells[0]: Row(*cells) for cells in lines}
