"""The `sidecar` command: one file per subcommand; each parses, calls, prints and gives an exit code."""

import gc
import os
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from typing import Any

import typer
from typer.core import TyperGroup

from sidecar import __version__
from sidecar.cli.usage import complaint, drop_service_links, unknown_variables
from sidecar.errors import SidecarError


@dataclass(frozen=True, slots=True)
class _Subcommand:
    """Where a subcommand stands: a function ``module:name``, or a group of its own, the module's ``app``."""

    place: str
    options: dict[str, Any] = field(default_factory=dict)


_SUBCOMMANDS = {
    "bootstrap": _Subcommand(
        "bootstrap:bootstrap", {"short_help": "Make the session CA and what the workload trusts."}
    ),
    "issue": _Subcommand("issue:issue", {"short_help": "Make this pod's own certificate, in an init container."}),
    "run": _Subcommand("run:run", {"short_help": "Run the proxy until SIGTERM."}),
    "exec": _Subcommand(
        "exec:exec_",
        {
            "short_help": "Run one command with a sidecar of its own.",
            "options_metavar": "[OPTIONS] --",
            # Options of the command are its own: everything after -- goes to it untouched.
            "context_settings": {"ignore_unknown_options": False, "allow_interspersed_args": False},
        },
    ),
    "netfilter": _Subcommand("netfilter:netfilter", {"short_help": "Let nothing leave but through the sidecar."}),
    "render": _Subcommand("render:render", {"short_help": "Print the Kubernetes manifests of one session."}),
    "limits": _Subcommand("limits:limits", {"short_help": "Print what bounds the sidecar, and by which setting."}),
    "trust": _Subcommand("trust:app"),
    "fence": _Subcommand("fence:app"),
    "inject": _Subcommand("inject:app"),
    "policy": _Subcommand("policy:app"),
    "events": _Subcommand("events:app"),
}


_SETTLES = ("run", "exec")  # these turn the garbage collector on again (`sidecar.runtime.engine`)


def _app_of(names: Iterable[str]) -> typer.Typer:
    """The command with these subcommands alone. Each imports much that the others don't need."""
    made = typer.Typer(
        name="sidecar",
        help="Let an untrusted workload out through a proxy that intercepts, decides by a policy, and records "
        "everything.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        # Tables cut long options and variables off in a terminal of 80 columns; plain text is wrapped.
        rich_markup_mode=None,
        context_settings={"max_content_width": 120},
    )
    made.callback()(_root)
    for name in names:
        module, _, attribute = _SUBCOMMANDS[name].place.partition(":")
        found = getattr(import_module(f"sidecar.cli.{module}"), attribute)
        if isinstance(found, typer.Typer):
            made.add_typer(found, name=name)
        else:
            made.command(name=name, **_SUBCOMMANDS[name].options)(found)
    return made


@cache
def _whole() -> typer.Typer:
    return _app_of(_SUBCOMMANDS)


def __getattr__(name: str) -> typer.Typer:
    if name == "app":
        return _whole()
    raise AttributeError(name)


def _version(asked: bool) -> None:
    if asked:
        print(f"sidecar {__version__}")
        raise typer.Exit


def _root(
    context: typer.Context,
    _asked: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Print the version."),
) -> None:
    if isinstance(context.command, TyperGroup):
        links = tuple(drop_service_links(os.environ, context.command))
        unknown = tuple(unknown_variables(os.environ, context.command))
        if unknown:  # to this subcommand; others may know them
            whole = typer.main.get_command(_whole())
            assert isinstance(whole, TyperGroup)
            unknown = tuple(unknown_variables(os.environ, whole))
        for warning in (*unknown, *links):
            print(f"sidecar: warning: {warning}", file=sys.stderr)


def main() -> None:
    """Entry point: what the user can act on becomes one line on stderr and an exit code; anything else is our bug."""
    try:
        asked = sys.argv[1] if len(sys.argv) > 1 else ""
        if asked in _SETTLES:
            gc.disable()  # what is imported stays
        app = _app_of((asked,)) if asked in _SUBCOMMANDS else _whole()
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
