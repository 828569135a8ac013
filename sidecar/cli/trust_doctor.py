"""``sidecar trust doctor``: which clients here trust the session CA, and what the others need."""

import json
import os
from pathlib import Path, PurePosixPath
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from sidecar.errors import Exit, SidecarError
from sidecar.trust.clients import NAMES
from sidecar.trust.doctor import Order, Report, examine
from sidecar.trust.elsewhere import place_of, there
from sidecar.trust.fixes import Fix, How
from sidecar.trust.outcomes import Outcome

_STYLES = {Outcome.TRUSTED: "green", Outcome.UNTRUSTED: "bold red"}
_WHERE = {
    How.RUN: "run in the workload's container",
    How.SET: "set in the workload's environment, then start its programs again",
    How.MOUNT: "mount into the workload's container",
}


def doctor(
    proxy: Annotated[
        str | None,
        typer.Option(metavar="URL", help="The sidecar's proxy. Default: HTTPS_PROXY; without, redirected connections."),
    ] = None,
    only: Annotated[
        list[str] | None, typer.Option(metavar="CLIENT", help="Examine this one alone. May be repeated.")
    ] = None,
    trust_mount: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH", help="Where the workload finds the trust folder. Default: where a variable leads."
        ),
    ] = None,
    pid: Annotated[
        int | None,
        typer.Option(metavar="PID", min=1, help="Examine the container of this process: its root, variables, user."),
    ] = None,
    root: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Examine what lies below DIR, e.g. /proc/PID/root.")
    ] = None,
    timeout_seconds: Annotated[float, typer.Option(min=1, max=600, help="For each client.")] = 30.0,
    at_once: Annotated[int, typer.Option(min=1, max=64, help="So many clients at the same time.")] = 4,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """
    Let each client that is here make one request through the sidecar, which answers it itself.

    Exit code: 0 if all trust it, 1 if one doesn't, 3 if the sidecar can't be reached.
    """
    for name in only or ():
        if name not in NAMES:
            raise SidecarError(
                f"--only {name!r} is no client that the doctor knows; write one of {', '.join(sorted(NAMES))}"
            )
    order = Order(
        proxy=proxy,
        trust=PurePosixPath(trust_mount) if trust_mount else None,
        only=frozenset(only or ()),
        seconds=timeout_seconds,
        at_once=at_once,
    )
    if pid is None and root is None:
        report = examine(order, os.environ)
    else:
        place = place_of(pid, root)
        report = there(place, lambda: examine(order, place.environment), Report)
    if as_json:
        typer.echo(as_object(report))
    else:
        show(report)
    raise typer.Exit(Exit.YES if report.trusted else Exit.NO)


def as_object(report: Report) -> str:
    """The report as one line of JSON; docs/doctor.md has its shape."""
    clients = [
        {
            "client": f.client,
            "label": f.label,
            "program": f.program,
            "outcome": f.outcome.name.lower(),
            "read": f.read,
            "why": f.why,
            "fixes": [{"how": fix.how.value, "text": fix.text, "pod": fix.pod or None} for fix in f.fixes],
        }
        for f in report.findings
    ]
    return json.dumps(
        {
            "trusted": report.trusted,
            "proxy": report.proxy,
            "trust_folder": report.trust,
            "trust_folder_mounted": report.mounted,
            "clients": clients,
        }
    )


def show(report: Report) -> None:
    """Print the report for people: a table, why, and what to do, to be pasted."""
    console = Console(highlight=False)
    way = f"through {report.proxy}" if report.proxy else "redirected"
    fixes = _numbered(report)
    console.print(Text(f"Who trusts the session CA ({way})", style="bold"))
    console.print(as_table(report, fixes))
    if not report.trusted and not report.mounted:
        console.print(
            Text(f"{report.trust} isn't there, or isn't of this session: mount the trust folder there first."),
            style="yellow",
        )
    for why, labels in _whys(report).items():
        console.print(Text.assemble("\n", (", ".join(labels), "bold"), f": {why}"))
    for number, fix in enumerate(fixes, 1):
        console.print(Text(f"\nfix {number}: {_WHERE[fix.how]}", style="bold"))
        # Not wrapped: these lines are to be pasted.
        typer.echo(f"    {fix.text}")
        if fix.pod:
            console.print(Text("  or, in a pod, among its volumeMounts"), style="bold")
            typer.echo(f"    - {fix.pod}")
    trusting = sum(finding.outcome is Outcome.TRUSTED for finding in report.findings)
    console.print(f"\n{trusting} of {len(report.findings)} clients trust the session CA")


def as_table(report: Report, fixes: list[Fix]) -> Table:
    """One line for each client; its fixes by their numbers."""
    table = Table()
    for heading in ("client", "verdict", "what it read", "fix"):
        table.add_column(heading, overflow="fold")
    for finding in report.findings:
        numbers = ", ".join(str(fixes.index(fix) + 1) for fix in finding.fixes)
        cells = (finding.label, finding.outcome.value, finding.read, numbers)
        # As Text: an address in brackets is no markup.
        table.add_row(*(Text(cell) for cell in cells), style=_STYLES.get(finding.outcome, "yellow"))
    return table


def _whys(report: Report) -> dict[str, list[str]]:
    whys: dict[str, list[str]] = {}
    for finding in report.findings:
        if finding.why:
            whys.setdefault(finding.why, []).append(finding.label)
    return whys


def _numbered(report: Report) -> list[Fix]:
    return list(dict.fromkeys(fix for finding in report.findings for fix in finding.fixes))
