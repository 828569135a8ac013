"""The page docs/clients.md, made from what was seen."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from tests.clients.client import Row, Trust

PAGE: Final = Path(__file__).parents[2] / "docs" / "clients.md"

_HEAD: Final = """\
# Clients: who trusts the session CA, and by what

Made by `python -m tests.clients`. Tests (`tests/clients`) compare it with what is seen: `make test` runs those clients
that any machine has, `make test-heavy` all of them.

Each client fetches one page from an upstream through the sidecar, in a pod behind the fence ([names](names.md)). A run
counts as *yes* only where the client shows the upstream's body and the sidecar has recorded the request; as *no* only
where the sidecar has recorded that the client gave up. Before, each client is run without being told whom to trust, and
must fail. It starts with an empty home each time. Debian 12's versions where Debian has the client, else PyPI's and
npm's; Java is OpenJDK 17.

| column | the client gets |
|---|---|
| variables | those of the trust folder's `env` ([trust](trust.md)), and nothing else |
| system files | the bundle mounted over what the image has below `/etc/ssl/certs`, and no variables |
| both | both: what the webhook gives a workload |
| `HTTPS_PROXY` | both, and it takes the proxy that the variable names; *no*: it comes by the redirect all the same |

"""
_COLUMNS: Final = (
    "| client | version | verifies by | variables | system files | both | `HTTPS_PROXY` | note |\n"
    "|---|---|---|---|---|---|---|---|\n"
)


def page(sections: Mapping[str, Sequence[Row]]) -> str:
    """The whole page."""
    rows = [row for section in sections.values() for row in section]
    sums = {trust: sum(row.trusts[trust] for row in rows) for trust in Trust if trust is not Trust.NOTHING}
    text = _HEAD + (
        f"{len(rows)} clients: {sums[Trust.VARIABLES]} trust by variables alone, {sums[Trust.SYSTEM]} by the system's "
        f"files alone, {sums[Trust.BOTH]} with both.\n"
    )
    for title, section in sections.items():
        text += f"\n## {title}\n\n{_COLUMNS}" + "".join(map(line, section))
    return text + _TAIL


def line(row: Row, *, version: bool = True) -> str:
    """One row; without the *version*, which differs between machines, as `lines` has it."""
    trusts = [_yes(row.trusts[trust]) for trust in Trust if trust is not Trust.NOTHING]
    proxy = "**fails**" if row.proxy is None and row.trusts[Trust.BOTH] else _yes(bool(row.proxy))
    note = "; ".join(filter(None, (row.client.exception, row.client.proxy_exception, row.client.note)))
    cells = [row.client.name, row.version if version else "", row.client.tls, *trusts, proxy, note]
    return "| " + " | ".join(cells).rstrip() + " |\n"


def lines(text: str) -> dict[str, str]:
    """The rows of a page by client, without versions."""
    rows = (re.split(r" \| ", row, maxsplit=2) for row in re.findall(r"^\| (.+ \| .+ \| .+)$", text, re.MULTILINE))
    return {name: f"| {name} |  | {rest}\n" for name, version, rest in rows if version != "version"}


def _yes(value: bool) -> str:
    return "yes" if value else "no"


_TAIL: Final = """
## Not in the table

- `nghttp`, `siege`, Tcl's `tls` and LuaSec verify nothing unless told: they take the session CA's certificates, and
  everybody else's.
- .NET, Swift, Julia, gcloud and the cargo of rustup are packaged by none of Debian, PyPI and npm: not measured.
- Chromium reads neither variables nor files, but NSS: see [trust](trust.md). A test loads a page in it so.
- `psql` and other databases speak TLS inside of protocols of their own, which isn't intercepted.
"""
