"""``sidecar run``: the proxy itself."""

import asyncio
import signal
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
import uvloop

from sidecar import logs
from sidecar.cli.options import (
    DnsPort,
    DnsUpstream,
    DrainSeconds,
    EventLevel,
    LogLevel,
    OwnLogLevel,
    PolicyFile,
    Resolve,
    Transparent,
    TransparentPort,
    UpstreamCa,
    parse_listen,
    parse_server,
)
from sidecar.events.sinks import FileSink, StreamSink
from sidecar.names.upstream import Server
from sidecar.netfilter.ruleset import DNS_PORT, TRANSPARENT_PORT
from sidecar.policy import load_policy
from sidecar.secrets import load_ca


def run(
    policy: PolicyFile = Path("/etc/egress/policy.yaml"),
    ca_dir: Annotated[
        Path, typer.Option(envvar="EGRESS_CA_DIR", metavar="DIR", help="The session CA: ca.pem and ca-key.pem.")
    ] = Path("/etc/egress/ca"),
    listen: Annotated[
        str, typer.Option(envvar="EGRESS_LISTEN", metavar="HOST:PORT", help="Where the explicit HTTP proxy listens.")
    ] = "127.0.0.1:14101",
    upstream_ca: UpstreamCa = None,
    resolve: Resolve = None,
    events: Annotated[
        Path | None,
        typer.Option(envvar="EGRESS_EVENTS", metavar="FILE", help="Append events to FILE. Default: standard output."),
    ] = None,
    session: Annotated[
        str | None,
        typer.Option(envvar="EGRESS_SESSION", metavar="ID", help="The session's id. Default: the CA's common name."),
    ] = None,
    event_level: EventLevel = LogLevel.INFO,
    log_level: OwnLogLevel = LogLevel.WARNING,
    drain_seconds: DrainSeconds = 10.0,
    transparent: Transparent = False,
    transparent_port: TransparentPort = TRANSPARENT_PORT,
    dns_port: DnsPort = DNS_PORT,
    dns_upstream: DnsUpstream = None,
) -> None:
    """Run the sidecar as an explicit HTTP proxy, and with --transparent for redirected traffic, until SIGTERM."""
    # mitmproxy is imported late: --help and every error in the input come at once.
    logs.configure(log_level)
    address, port = parse_listen(listen)
    loaded = load_policy(policy)
    ca = load_ca(ca_dir, datetime.now(UTC))

    from sidecar.runtime.engine import serve
    from sidecar.runtime.listeners import address_of, bind, explicit, redirected
    from sidecar.runtime.session import Session, Settings, parse_resolve

    pinned = parse_resolve(resolve or ())
    listener = bind(address, port)
    settings = Settings(
        policy=loaded,
        ca=ca,
        sink=FileSink(events) if events else StreamSink(sys.stdout.fileno()),
        session=session or ca.common_name,
        level=event_level.value,
        upstream_ca=upstream_ca,
        pinned=pinned,
    )
    running = Session(settings)
    modes, listen_on, more_addons = [explicit(listener)], [address_of(listener)], []
    if transparent:
        from sidecar.runtime import transparent as redirect

        redirected_to = [bind(address, transparent_port) for address in redirect.loopback()]
        servers = [Server(*parse_server(text)) for text in dns_upstream or ()]
        modes += [redirected(*redirected_to), *redirect.dns_modes(dns_port)]
        listen_on += [address_of(socket) for socket in redirected_to]
        more_addons = redirect.addons_for_names(running, redirect.names_from_system(servers))

    async def until_signalled() -> None:
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        await stop.wait()

    try:
        uvloop.run(
            serve(
                running,
                modes,
                listen=listen_on,
                more_addons=more_addons,
                until=until_signalled,
                drain_seconds=drain_seconds,
            )
        )
    finally:
        running.close()
