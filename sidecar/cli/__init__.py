"""The `sidecar` command: one file per subcommand; each parses, calls, prints and gives an exit code."""

import os
import sys

import typer
from typer.core import TyperGroup

import sidecar.cli.events as events
import sidecar.cli.fence as fence
import sidecar.cli.inject as inject
import sidecar.cli.policy as policy
import sidecar.cli.trust as trust
from sidecar import __version__
from sidecar.cli.bootstrap import bootstrap
from sidecar.cli.exec import exec_
from sidecar.cli.issue import issue
from sidecar.cli.limits import limits
from sidecar.cli.netfilter import netfilter
from sidecar.cli.render import render
from sidecar.cli.run import run
from sidecar.cli.usage import complaint, drop_service_links, unknown_variables
from sidecar.errors import SidecarError

app = typer.Typer(
    name="sidecar",
    help="Let an untrusted workload out through a proxy that intercepts, decides by a policy, and records everything.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    # Tables cut long options and variables off in a terminal of 80 columns; plain text is wrapped.
    rich_markup_mode=None,
    context_settings={"max_content_width": 120},
)
app.command(short_help="Make the session CA and what the workload trusts.")(bootstrap)
app.command(short_help="Make this pod's own certificate, in an init container.")(issue)
app.command(short_help="Run the proxy until SIGTERM.")(run)
app.command(
    name="exec",
    short_help="Run one command with a sidecar of its own.",
    options_metavar="[OPTIONS] --",
    # Options of the command are its own: everything after -- goes to it untouched.
    context_settings={"ignore_unknown_options": False, "allow_interspersed_args": False},
)(exec_)
app.command(short_help="Let nothing leave but through the sidecar.")(netfilter)
app.command(short_help="Print the Kubernetes manifests of one session.")(render)
app.command(short_help="Print what bounds the sidecar, and by which setting.")(limits)
app.add_typer(trust.app, name="trust")
app.add_typer(fence.app, name="fence")
app.add_typer(inject.app, name="inject")
app.add_typer(policy.app, name="policy")
app.add_typer(events.app, name="events")


def _version(asked: bool) -> None:
    if asked:
        print(f"sidecar {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    context: typer.Context,
    _asked: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Print the version."),
) -> None:
    if isinstance(context.command, TyperGroup):
        links = tuple(drop_service_links(os.environ, context.command))
        for warning in (*unknown_variables(os.environ, context.command), *links):
            print(f"sidecar: warning: {warning}", file=sys.stderr)


def main() -> None:
    """Entry point: what the user can act on becomes one line on stderr and an exit code; anything else is our bug."""
    try:
        code = app(prog_name="sidecar", standalone_mode=False)
    except typer.TyperException as e:
        text = e.format_message()
        # Without a subcommand, the message is the help.
        print(text if "\n" in text else f"sidecar: {complaint(e)}", file=sys.stderr)
        raise SystemExit(e.exit_code) from None
    except SidecarError as e:
        print(f"sidecar: {e}", file=sys.stderr)
        raise SystemExit(int(e.exit_code)) from None
    raise SystemExit(code or 0)
