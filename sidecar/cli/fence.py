"""``sidecar fence``: prove that nothing leaves but through the sidecar."""

import asyncio
import json
import signal
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from sidecar.cli.options import words
from sidecar.errors import Exit, SidecarError
from sidecar.fence.check import check as run_check
from sidecar.fence.plan import NAME
from sidecar.fence.verdict import Report, Result, Verdict
from sidecar.hosts import Authority, HostError, parse_authority, parse_host

app = typer.Typer(help="Prove the fence.", no_args_is_help=True)

_ENDS = {signal.SIGTERM, signal.SIGINT}
_STYLES = {Verdict.HELD: "green", Verdict.WORKS: "green", Verdict.SKIPPED: "dim"}


@app.callback()
def _group() -> None:
    pass


@app.command()
def check(
    control_socket: Annotated[
        Path,
        # Not "readable": who may not use it is told why by the attempt.
        typer.Option(
            envvar="EGRESS_CONTROL_SOCKET", metavar="PATH", readable=False, help="The sidecar's control socket."
        ),
    ] = Path("/run/egress/control.sock"),
    expect_allowed: Annotated[
        list[str] | None,
        typer.Option(
            envvar="EGRESS_EXPECT_ALLOWED", metavar="NAME:PORT", help="Must resolve and connect. May be repeated."
        ),
    ] = None,
    denied_name: Annotated[
        str, typer.Option(envvar="EGRESS_DENIED_NAME", metavar="NAME", help="A name that policy denies.")
    ] = NAME,
    wait_seconds: Annotated[
        float, typer.Option(envvar="EGRESS_WAIT_SECONDS", min=0, help="Wait so long for a sidecar that starts.")
    ] = 10.0,
    then_sleep: Annotated[
        bool, typer.Option("--then-sleep", help="After the answer, wait for SIGTERM: for a container among others.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Answer in JSON.")] = False,
) -> None:
    """
    Send canaries that must be held, as the workload would, and tell the sidecar the result: exit 0 or 1.

    Run it in the workload's network namespace, as the workload's user or another that isn't the sidecar's. It needs
    the control socket and no capability.
    """
    allowed = [_destination(text) for text in words(expect_allowed)]
    name = _name(denied_name)
    report = asyncio.run(run_check(control_socket, name=name, allowed=allowed, wait_seconds=wait_seconds))
    if as_json:
        typer.echo(as_object(report))
    else:
        Console().print(as_table(report))
        typer.echo("the fence holds" if report.held else f"the fence is not proven: {_names(report.failures)}")
    if then_sleep:
        sys.stdout.flush()
        # As a container's first process nothing would end it by default; blocked, the signal waits for us.
        signal.pthread_sigmask(signal.SIG_BLOCK, _ENDS)
        signal.sigwait(_ENDS)
    raise typer.Exit(Exit.YES if report.held else Exit.NO)


def as_object(report: Report) -> str:
    """The report as one line of JSON."""
    canaries = [
        {"canary": r.canary, "target": r.target, "expected": r.expected, "seen": r.seen, "verdict": r.verdict.value}
        for r in report.results
    ]
    return json.dumps({"held": report.held, "failures": [r.canary for r in report.failures], "canaries": canaries})


def as_table(report: Report) -> Table:
    """The report for people, failures in red."""
    table = Table(title="The fence, canary by canary", title_justify="left", title_style="bold")
    for heading in ("canary", "target", "expected", "seen", "verdict"):
        table.add_column(heading, overflow="fold")
    for result in report.results:
        cells = (result.canary, result.target, result.expected, result.seen, result.verdict.value.replace("_", " "))
        # As Text: an address in brackets is no markup.
        table.add_row(*(Text(cell) for cell in cells), style=_STYLES.get(result.verdict, "bold red"))
    return table


def _names(results: tuple[Result, ...]) -> str:
    return ", ".join(result.canary for result in results)


def _name(text: str) -> str:
    try:
        return parse_host(text).name
    except HostError as e:
        raise SidecarError(f"--denied-name: {e}; write one such as {NAME!r}") from None


def _destination(text: str) -> Authority:
    try:
        authority = parse_authority(text)
    except HostError as e:
        raise SidecarError(f"--expect-allowed: {e}") from None
    if authority.port is None:
        raise SidecarError(f"--expect-allowed {text!r} has no port; write '{text}:443'")
    return authority
