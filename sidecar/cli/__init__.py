"""The `sidecar` command: one file per subcommand; each parses, calls, prints and gives an exit code."""

import sys

import typer

import sidecar.cli.events as events
import sidecar.cli.fence as fence
import sidecar.cli.policy as policy
from sidecar import __version__
from sidecar.cli.bootstrap import bootstrap
from sidecar.cli.exec import exec_
from sidecar.cli.netfilter import netfilter
from sidecar.cli.run import run
from sidecar.errors import SidecarError

app = typer.Typer(
    name="sidecar",
    help="Let an untrusted workload out through a proxy that intercepts, decides by a policy, and records everything.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
app.command()(bootstrap)
app.command()(run)
app.command(
    name="exec",
    # Options of the command are its own: everything after -- goes to it untouched.
    context_settings={"ignore_unknown_options": False, "allow_interspersed_args": False},
)(exec_)
app.command()(netfilter)
app.add_typer(fence.app, name="fence")
app.add_typer(policy.app, name="policy")
app.add_typer(events.app, name="events")


def _version(asked: bool) -> None:
    if asked:
        print(f"sidecar {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Print the version."),
) -> None:
    pass


def main() -> None:
    """Entry point: a `SidecarError` becomes one line on stderr and its exit code; anything else is our bug."""
    try:
        app()
    except SidecarError as e:
        print(f"sidecar: {e}", file=sys.stderr)
        raise SystemExit(int(e.exit_code)) from None
