"""The page docs/bypass-matrix.md, made from what was seen."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from tests.live.bypass.vector import Row

PAGE: Final = Path(__file__).parents[3] / "docs" / "bypass-matrix.md"

_HEAD: Final = """\
# The bypass matrix

What a hostile workload may try, and what comes of it. Made by `python -m tests.live.bypass`, and each row is a test
(`tests/live/bypass`).

Two pods, each with a veth link to a host that plays the Internet: it answers on every TCP port, in TLS or not, resolves
every name, and sees every packet. In one pod nothing holds the workload; in the other are the fence (`sidecar
netfilter`) and the sidecar (`sidecar run --transparent`). Each attempt carries a token of its own and is made in the
first pod, where the token has to arrive or the attempt has to get its answer (else the row would show nothing), and
in the second as root and as another user. There, no packet may go anywhere but to the hosts that policy allows, and
the token may not arrive at all. The harness waits for a marker that was sent behind the attempt, not for time.

The workload's root has no
{capabilities},
and nobody gains privileges. A row that is held by that names the precondition; there, the attempt without the fence is
made by root with all capabilities, and what comes of it within the fence is in brackets. The event is what the sidecar
wrote; none where the kernel refuses.

`EPERM`, `ECONNREFUSED`, `EACCES`, `EHOSTUNREACH`: refused at once. `timeout`: dropped. `closed`: the sidecar took the
connection and ended it. `403 default_deny`: its answer. `intercepted`: TLS with a leaf of the session CA.

Not in the matrix, since the fence is about IP: Unix sockets and devices that are mounted into the pod, `AF_VSOCK`, and
whoever connects *to* the workload from outside, who can be answered (see [the fence](netfilter.md)).
"""
_COLUMNS: Final = "| attempt | without the fence | held if | seen | event | precondition |\n|---|---|---|---|---|---|\n"


def page(sections: Mapping[str, Sequence[Row]], capabilities: Sequence[str]) -> str:
    """The whole page; rows that were not held say so in bold."""
    count = sum(map(len, sections.values()))
    missed = sum(bool(row.problems) for rows in sections.values() for row in rows)
    named = ", ".join(name.upper() for name in capabilities[:-1]) + f" or {capabilities[-1].upper()}"
    text = _HEAD.format(capabilities=named) + f"\n{count} attempts, {count - missed} held.\n"
    for title, rows in sections.items():
        text += f"\n## {title}\n\n{_COLUMNS}" + "".join(line(row) for row in rows)
    return text


def line(row: Row) -> str:
    seen = row.seen if not row.problems else f"**{row.seen}: not held**"
    cells = (row.id, row.without, row.expected, seen, row.event or "–", row.precondition)
    return "| " + " | ".join(map(_cell, cells)).rstrip() + " |\n"


def ids(text: str) -> list[str]:
    """The rows of a page, in their order."""
    return [
        found[1].replace("\\|", "|")
        for found in re.finditer(r"^\| (.+?) \| ", text, re.MULTILINE)
        if found[1] != "attempt"
    ]


def _cell(text: str) -> str:
    printable = "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)
    return printable.replace("|", "\\|").replace("<", "&lt;")
