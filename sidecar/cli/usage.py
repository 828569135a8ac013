"""What is told to whom has typed something else than the command line takes: one line, as for every other mistake."""

import re
from collections.abc import Iterable, Iterator, Mapping
from difflib import get_close_matches

import typer
from typer.core import TyperCommand, TyperGroup

from sidecar.errors import SidecarError

# What the kubelet sets in every container for a Service whose name begins with "egress".
_SERVICE_LINK = re.compile(r"_SERVICE_HOST$|_SERVICE_PORT(_|$)|_PORT_[0-9]+_(TCP|UDP|SCTP)(_|$)")
_SERVICE_URL = re.compile(r"(tcp|udp|sctp)://")


def complaint(error: typer.TyperException) -> str:
    """
    The one line for a mistake in a command line or in a variable that stands for an option.

    Example: ``--drain-seconds 'abc' (or EGRESS_DRAIN_SECONDS): should be a valid number; see sidecar run --help``.
    """
    context, parameter = getattr(error, "ctx", None), getattr(error, "param", None)
    text = error.format_message().rstrip(".")
    text = re.sub(r" \(Possible options: (.*)\)$", r"; did you mean \1?", text)
    found = re.match(
        r"(Invalid value|Missing option)(?: for)? '(--[a-z-]+)'[^:(]*(?: \(env var: '(\w+)'\))?(?:: |$)", text
    )
    if parameter is not None and found is not None:
        what, option, variable = found.groups()
        rest = re.sub(r"^(Input|Value error,) ?|, unable to .*", "", text[found.end() :])
        if what == "Missing option":
            text = f"{option} is missing" + (f" (or {variable})" if variable else "")
        else:
            text = f"{option}{_given(error)}" + (f" (or {variable})" if variable else "") + f": {rest}"
    else:
        text = (text[:1].lower() + text[1:]).replace("': Value error, ", "': ")
    return text if context is None or text.endswith("?") else f"{text}; see {context.command_path} --help"


def unknown_variables(environment: Mapping[str, str], group: TyperGroup) -> Iterator[str]:
    """A warning for each ``EGRESS_*`` variable that no subcommand reads: a typo there would be obeyed by nobody."""
    known = {
        variable
        for command in _commands(group)
        for parameter in command.params
        for variable in _names(getattr(parameter, "envvar", None))
    }
    for name in sorted(environment.keys() - known):
        if not name.startswith("EGRESS_") or _SERVICE_LINK.search(name) or _SERVICE_URL.match(environment[name]):
            continue
        close = get_close_matches(name, sorted(known), n=1, cutoff=0.8)
        advice = f"did you mean {close[0]}?" if close else "no subcommand reads it"
        yield f"{name} is ignored: {advice}"


def drop_service_links(environment: Mapping[str, str], group: TyperGroup) -> Iterator[str]:
    """
    Let no option read a variable that Kubernetes has set for a Service; a warning for each.

    A Service ``egress-dns`` sets ``EGRESS_DNS_PORT=tcp://10.0.0.1:53`` in every container of its namespace: no pod
    should fail to start since somebody has made one. The environment itself stays as it is.
    """
    dropped = set()
    for command in _commands(group):
        for parameter in command.params:
            read = tuple(_names(getattr(parameter, "envvar", None)))
            links = [name for name in read if name.endswith("_PORT") and _SERVICE_URL.match(environment.get(name, ""))]
            if links:
                parameter.envvar = [name for name in read if name not in links]
                dropped.update(links)
    for name in sorted(dropped):
        service = name.removesuffix("_PORT").lower().replace("_", "-")
        yield (
            f"{name} is ignored: {environment[name]!r} is what Kubernetes sets for a Service named {service}; "
            "set enableServiceLinks: false, or rename the Service"
        )


def refuse_without(needed: str, context: typer.Context, parameters: Iterable[str]) -> None:
    """
    Refuse options that only mean something together with *needed*, which wasn't given.

    Variables are let pass: a pod may set them for several containers alike.

    Raises:
        SidecarError: One of *parameters* stands on the command line.
    """
    for parameter in context.command.params:
        source = context.get_parameter_source(parameter.name or "")
        if parameter.name in parameters and source is not None and source.name == "COMMANDLINE":
            raise SidecarError(
                f"{parameter.opts[0]} says something of {needed}, which is missing; give both or neither"
            )


def _given(error: typer.TyperException) -> str:
    """The value in question, where the error knows it."""
    errors = getattr(error.__cause__, "errors", None)
    return f" {errors()[0]['input']!r}" if errors is not None else ""


def _commands(group: TyperGroup) -> Iterator[TyperCommand | TyperGroup]:
    for command in group.commands.values():
        if isinstance(command, TyperGroup):
            yield from _commands(command)
        elif isinstance(command, TyperCommand):
            yield command


def _names(variables: str | Iterable[str] | None) -> Iterable[str]:
    return (variables,) if isinstance(variables, str) else variables or ()
