"""``sidecar inject``: the admission webhook, and what it would do to a pod."""

import asyncio
import json
import signal
import sys
from pathlib import Path
from typing import Annotated

import typer
import uvloop

from sidecar import hardening, logs
from sidecar.cli.options import LogLevel, OwnLogLevel, parse_listen
from sidecar.errors import Exit, SidecarError

app = typer.Typer(help="Put the sidecar, or trust alone, into pods that know nothing of it.", no_args_is_help=True)

ConfigPath = Annotated[
    Path, typer.Option(envvar="EGRESS_INJECT_CONFIG", metavar="FILE", help="The webhook's configuration.")
]


@app.callback()
def _group() -> None:
    pass


@app.command()
def serve(
    listen: Annotated[
        str, typer.Option(envvar="EGRESS_INJECT_LISTEN", metavar="ADDRESS:PORT", help="Where reviews are answered.")
    ] = "0.0.0.0:8443",
    cert_dir: Annotated[
        Path,
        typer.Option(
            envvar="EGRESS_INJECT_CERT_DIR", metavar="DIR", help="tls.crt and tls.key; read again when they change."
        ),
    ] = Path("/etc/egress/webhook/tls"),
    config: ConfigPath = Path("/etc/egress/webhook/config.yaml"),
    health_listen: Annotated[
        str,
        typer.Option(
            envvar="EGRESS_INJECT_HEALTH_LISTEN",
            metavar="ADDRESS:PORT",
            help="Where /livez, /readyz and /metrics are served.",
        ),
    ] = "0.0.0.0:14120",
    drain_seconds: Annotated[
        float,
        typer.Option(envvar="EGRESS_DRAIN_SECONDS", min=0, help="Go on answering for so long after SIGTERM."),
    ] = 5.0,
    log_level: OwnLogLevel = LogLevel.WARNING,
) -> None:
    """Answer AdmissionReviews: POST /mutate injects, POST /validate refuses what gets past the sidecar."""
    from sidecar.inject import server
    from sidecar.inject.certificates import ServingCertificate

    logs.configure(log_level)
    hardening.harden()
    addresses = [parse_listen(text) for text in (listen, health_listen)]
    shared = server.Webhooks(ServingCertificate(cert_dir), server.ConfigFile(config))
    webhook, health = (server.listen(*address) for address in addresses)

    async def until_signalled() -> None:
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        typer.echo(f"answering reviews on {_name(webhook.getsockname())}", err=True)
        typer.echo(f"health and metrics on {_name(health.getsockname())}", err=True)
        await stop.wait()

    uvloop.run(server.serve(shared, webhook, health, until_signalled, drain_seconds))


@app.command()
def check(config: ConfigPath = Path("/etc/egress/webhook/config.yaml")) -> None:
    """Say whether the configuration can be used."""
    from sidecar.inject.server import ConfigFile

    found = ConfigFile(config).config
    typer.echo(f"{config} is valid: {len(found.namespaces)} rules for namespaces, {len(found.policies)} policies")


@app.command()
def pod(
    file: Annotated[Path, typer.Argument(metavar="POD.yaml", help="A Pod; - for standard input.")],
    namespace: Annotated[str, typer.Option("--namespace", "-n", metavar="NAME", help="Where it is created.")],
    config: ConfigPath = Path("/etc/egress/webhook/config.yaml"),
    patch: Annotated[bool, typer.Option("--patch", help="Print the JSON Patch instead.")] = False,
) -> None:
    """Print a pod as the webhook would make it: exit 0, or 1 where it would be refused."""
    from sidecar.inject.names import Refusal
    from sidecar.inject.patch import diff
    from sidecar.inject.review import change
    from sidecar.inject.server import ConfigFile
    from sidecar.render.documents import dump, read_pod

    found = ConfigFile(config).config
    before = read_pod(read_text(file), str(file))
    try:
        changed = change(before, namespace, found)
    except Refusal as e:
        typer.echo(str(e), err=True)
        raise typer.Exit(Exit.NO) from None
    after = changed.pod if changed else before
    for warning in changed.warnings if changed else ():
        typer.echo(f"warning: {warning}", err=True)
    typer.echo(json.dumps(list(diff(before, after)), indent=2) if patch else dump([after]), nl=patch)


def _name(address: tuple[str, int]) -> str:
    host, port = address[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def read_text(path: Path) -> str:
    """A manifest or a policy; - is standard input."""
    try:
        return sys.stdin.read() if str(path) == "-" else path.read_text()
    except (OSError, UnicodeDecodeError) as e:
        raise SidecarError(f"{path}: {getattr(e, 'strerror', None) or e}; give the path of a manifest") from None
