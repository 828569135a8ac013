"""Runs every client and writes docs/clients.md; exit code 1 where a row shows nothing, or not what it must."""

import sys
from concurrent.futures import ThreadPoolExecutor

from tests.clients import table
from tests.clients.laboratory import laboratory
from tests.clients.rows import CLIENTS, SECTIONS
from tests.clients.tools import Tools


def main() -> int:
    tools = Tools()
    tools.make(quick=False)
    with laboratory(CLIENTS, tools) as lab, ThreadPoolExecutor(2) as pool:
        rows = dict(zip((client.name for client in CLIENTS), pool.map(lab.observe, CLIENTS), strict=True))
    sections = {title: [rows[client.name] for client in clients] for title, clients in SECTIONS.items()}
    table.PAGE.write_text(table.page(sections))
    missed = [row for row in rows.values() if row.problems]
    for row in missed:
        print(f"{row.client.name}: {'; '.join(row.problems)}", file=sys.stderr)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
