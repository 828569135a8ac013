"""``sidecar netfilter``: the fence, printed, applied, checked or removed."""

import json
from ipaddress import ip_network
from typing import Annotated

import typer

from sidecar.addresses import IPNetwork
from sidecar.cli.options import words
from sidecar.errors import Exit
from sidecar.netfilter.apply import apply, check, missing_routes, remove
from sidecar.netfilter.ruleset import (
    CONTROL_PORTS,
    DNS_PORT,
    SIDECAR_UID,
    TRANSPARENT_PORT,
    Ruleset,
    RulesetError,
    routes,
)


def netfilter(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the rules and change nothing.")] = False,
    check_: Annotated[bool, typer.Option("--check", help="Say whether the rules are in force: exit 0 or 1.")] = False,
    remove_: Annotated[bool, typer.Option("--remove", help="Take the rules away.")] = False,
    sidecar_uid: Annotated[
        int, typer.Option(envvar="EGRESS_SIDECAR_UID", metavar="UID", help="The user whose packets pass.")
    ] = SIDECAR_UID,
    transparent_port: Annotated[
        int,
        typer.Option(
            envvar="EGRESS_TRANSPARENT_PORT", min=1, max=65535, metavar="PORT", help="Where redirected TCP goes."
        ),
    ] = TRANSPARENT_PORT,
    dns_port: Annotated[
        int, typer.Option(envvar="EGRESS_DNS_PORT", min=1, max=65535, metavar="PORT", help="Where port 53 goes.")
    ] = DNS_PORT,
    control_port: Annotated[
        list[str] | None,
        typer.Option(
            envvar="EGRESS_CONTROL_PORT",
            metavar="PORT",
            help=f"A loopback port kept from the workload; repeatable. Default: {CONTROL_PORTS[0]}.",
        ),
    ] = None,
    exclude_cidr: Annotated[
        list[str] | None,
        typer.Option(
            envvar="EGRESS_EXCLUDE_CIDR", metavar="CIDR", help="A network to exempt, but for port 53; repeatable."
        ),
    ] = None,
    exclude_port: Annotated[
        list[str] | None,
        typer.Option(
            envvar="EGRESS_EXCLUDE_PORT",
            metavar="PORT",
            help="A destination port to exempt, TCP and UDP; repeatable.",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Answer in JSON.")] = False,
) -> None:
    """Let nothing leave this network namespace but through the sidecar. Needs NET_ADMIN, and nothing else."""
    if dry_run + check_ + remove_ > 1:
        raise RulesetError("--dry-run, --check and --remove exclude each other; give one")
    ruleset = Ruleset(
        sidecar_uid=sidecar_uid,
        transparent_port=transparent_port,
        dns_port=dns_port,
        control_ports=tuple(_port("--control-port", word) for word in words(control_port)) or CONTROL_PORTS,
        exclude_cidrs=tuple(_network(word) for word in words(exclude_cidr)),
        exclude_ports=tuple(_port("--exclude-port", word) for word in words(exclude_port)),
    )
    if dry_run:
        commands = [["ip", *arguments] for arguments in routes(**missing_routes())]
        text = ruleset.text() + "".join(f"# {' '.join(command)}\n" for command in commands)
        _answer({"ruleset": ruleset.text(), "routes": commands}, text.rstrip("\n"), as_json)
    elif check_:
        differences = check(ruleset)
        text = "\n".join(["not in force:", *differences]) if differences else "in force"
        _answer({"in_force": not differences, "differences": differences}, text, as_json)
        raise typer.Exit(Exit.NO if differences else Exit.YES)
    elif remove_:
        removed = remove()
        _answer({"removed": removed}, "removed" if removed else "there were no rules", as_json)
    else:
        apply(ruleset)
        _answer({"applied": True}, f"in force: all but UID {sidecar_uid} goes through the sidecar", as_json)


def _network(text: str) -> IPNetwork:
    try:
        return ip_network(text)
    except ValueError as e:
        raise RulesetError(f"--exclude-cidr {text}: {e}; write a network such as 10.20.0.0/16") from None


def _port(option: str, text: str) -> int:
    if not (text.isascii() and text.isdecimal() and 0 < int(text) < 65536):
        raise RulesetError(f"{option} {text}: not a port; write one from 1 to 65535")
    return int(text)


def _answer(fields: dict[str, object], text: str, as_json: bool) -> None:
    typer.echo(json.dumps(fields) if as_json else text)
