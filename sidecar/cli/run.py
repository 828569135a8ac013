"""``sidecar run``: the proxy itself."""

import asyncio
import os
import signal
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer
import uvloop

from sidecar import hardening, logs
from sidecar.cli.options import (
    Addons,
    AddUpstreamCa,
    ControlSocketMode,
    DnsPort,
    DnsUpstream,
    DrainSeconds,
    EventLevel,
    IdleSeconds,
    LimitList,
    LogLevel,
    NoProxyList,
    OwnLogLevel,
    PolicyFile,
    Resolve,
    RootOverlap,
    Transparent,
    TransparentPort,
    TrustBundle,
    UpstreamCa,
    UpstreamProxyCredentials,
    UpstreamProxyUrl,
    parse_health_listen,
    parse_listen,
    parse_server,
    words,
)
from sidecar.cli.usage import refuse_without
from sidecar.control.readiness import FenceMode
from sidecar.events.sinks import FileSink, StreamSink
from sidecar.limits import Limits, parse_limits
from sidecar.names.upstream import Server
from sidecar.netfilter.ruleset import CONTROL_PORTS, DNS_PORT, TRANSPARENT_PORT
from sidecar.pki.coverage import check_coverage
from sidecar.pki.rotation import OVERLAP
from sidecar.policy import load_policy
from sidecar.secrets import load_ca

_WITH_TRANSPARENT = ("transparent_port", "dns_port", "dns_upstream", "control_port", "allow_root")


def run(
    context: typer.Context,
    policy: PolicyFile = Path("/etc/egress/policy.yaml"),
    ca_dir: Annotated[
        Path, typer.Option(envvar="EGRESS_CA_DIR", metavar="DIR", help="The session CA: ca.pem and ca-key.pem.")
    ] = Path("/etc/egress/ca"),
    listen: Annotated[
        str, typer.Option(envvar="EGRESS_LISTEN", metavar="ADDRESS:PORT", help="Where the explicit HTTP proxy listens.")
    ] = "127.0.0.1:14101",
    upstream_ca: UpstreamCa = None,
    add_upstream_ca: AddUpstreamCa = None,
    resolve: Resolve = None,
    addon: Addons = None,
    upstream_proxy: UpstreamProxyUrl = None,
    upstream_proxy_credentials: UpstreamProxyCredentials = None,
    no_proxy: NoProxyList = None,
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
    trust_bundle: TrustBundle = None,
    root_overlap: RootOverlap = int(OVERLAP.total_seconds()),
    drain_seconds: DrainSeconds = 10.0,
    idle_seconds: IdleSeconds = 3600,
    limit: LimitList = None,
    transparent: Transparent = False,
    transparent_port: TransparentPort = TRANSPARENT_PORT,
    dns_port: DnsPort = DNS_PORT,
    dns_upstream: DnsUpstream = None,
    fence: Annotated[
        FenceMode | None,
        typer.Option(
            envvar="EGRESS_FENCE",
            help="Ready only once a fence check has held (strict), or whatever it says. Default with --transparent: "
            "strict; else off.",
        ),
    ] = None,
    health_listen: Annotated[
        str | None,
        typer.Option(
            envvar="EGRESS_HEALTH_LISTEN",
            metavar="ADDRESS:PORT",
            help="Where /startupz, /livez, /readyz and /metrics are served; none turns them off. "
            "Default: 127.0.0.1:14120.",
        ),
    ] = None,
    control_socket: Annotated[
        Path | None,
        typer.Option(envvar="EGRESS_CONTROL_SOCKET", metavar="PATH", help="Serve the control API on this Unix socket."),
    ] = None,
    control_socket_mode: Annotated[
        ControlSocketMode, typer.Option(envvar="EGRESS_CONTROL_SOCKET_MODE", help="0660 lets the sidecar's group in.")
    ] = ControlSocketMode.OWNER,
    control_port: Annotated[
        int,
        typer.Option(
            envvar="EGRESS_CONTROL_PORT",
            min=1,
            max=65535,
            metavar="PORT",
            help="With --transparent and --control-socket: a loopback port held for itself.",
        ),
    ] = CONTROL_PORTS[0],
    user: Annotated[
        str | None,
        typer.Option(
            envvar="EGRESS_USER", metavar="UID[:GID]", help="Started as root: be this user once all is bound."
        ),
    ] = None,
    allow_root: Annotated[
        bool, typer.Option("--allow-root", envvar="EGRESS_ALLOW_ROOT", help="Run as root with --transparent.")
    ] = False,
) -> None:
    """Run the sidecar as an explicit HTTP proxy, and with --transparent for redirected traffic, until SIGTERM."""
    # mitmproxy is imported late: --help and every error in the input come at once.
    if not transparent:
        refuse_without("--transparent", context, _WITH_TRANSPARENT)
    if control_socket is None:
        refuse_without("--control-socket", context, ("control_socket_mode", "control_port"))
    if trust_bundle is None:
        refuse_without("--trust-bundle", context, ("root_overlap",))
    logs.configure(log_level)
    hardening.harden()
    limits = hardening.within_descriptors(
        parse_limits(words(limit), Limits(idle_seconds=idle_seconds)), hardening.allow_descriptors()
    )
    # A judged name is looked up as it is before any search list makes another of it (resolv.conf(5)).
    os.environ.setdefault("RES_OPTIONS", "ndots:1")
    become = hardening.parse_user(user) if user is not None else None
    hardening.refuse_root(transparent=transparent, allow_root=allow_root, user=become)
    health, health_wanted = parse_health_listen(health_listen)
    address, port = parse_listen(listen)
    loaded = load_policy(policy)
    ca = load_ca(ca_dir, datetime.now(UTC))
    check_coverage(loaded, ca)

    from sidecar.runtime.slim import slim

    slim()

    from addons.protocol import CanaryWatch
    from sidecar.control.service import Control, Sockets, open_health
    from sidecar.control.sockets import bind_control
    from sidecar.runtime.engine import serve
    from sidecar.runtime.listeners import address_of, bind, explicit, redirected
    from sidecar.runtime.reload import reloading
    from sidecar.runtime.rotation import Mounted, Rotator, read_bundle
    from sidecar.runtime.session import Session, Settings, parse_resolve, read_upstream_proxy
    from sidecar.upstreams.files import load_upstreams
    from sidecar.upstreams.roots import RootFiles

    pinned = parse_resolve(words(resolve))
    through = read_upstream_proxy(upstream_proxy, upstream_proxy_credentials, no_proxy or ())
    upstreams = load_upstreams(loaded, RootFiles(upstream_ca, add_upstream_ca))
    if trust_bundle is not None:
        read_bundle(trust_bundle)
    mounted = Mounted(ca_dir, trust_bundle, timedelta(seconds=root_overlap))
    listener = bind(address, port)
    queue = (limits.event_lines, limits.event_bytes)
    sink = FileSink(events, *queue) if events else StreamSink(sys.stdout.fileno(), *queue)
    settings = Settings(
        policy=loaded,
        upstreams=upstreams,
        ca=ca,
        sink=sink,
        session=session or ca.common_name,
        level=event_level.value,
        pinned=pinned,
        limits=limits,
        upstream_proxy=through,
    )
    running = Session(settings)
    modes, listen_on, more_addons = [explicit(listener)], [address_of(listener)], []
    if transparent:
        from sidecar.runtime import transparent as redirect

        redirected_to = [bind(address, transparent_port, "--transparent-port") for address in redirect.loopback()]
        servers = [Server(*parse_server(text)) for text in words(dns_upstream)]
        modes += [redirected(*redirected_to), *redirect.dns_modes(dns_port)]
        listen_on += [address_of(socket) for socket in redirected_to]
        more_addons = redirect.addons_for_names(running, redirect.names_from_system(servers))

    owner = (become.uid, become.gid) if become is not None else None
    control = Control(
        Sockets(
            health=open_health(health, required=transparent) if health_wanted else None,
            control=bind_control(control_socket, mode=control_socket_mode.bits, owner=owner)
            if control_socket is not None
            else None,
            held=[bind(address, control_port, "--control-port") for address in redirect.loopback()]
            if transparent and control_socket is not None
            else [],
        ),
        fence or (FenceMode.STRICT if transparent else FenceMode.OFF),
        control_socket,
    )
    more_addons = [CanaryWatch(running.ledger, control.canaries), *more_addons]
    if become is not None:
        # What is imported late elsewhere: that user may be unable to read it.
        import prometheus_client.exposition  # noqa: F401
        import structlog  # noqa: F401

        hardening.become(become)
    hardening.report_capabilities(transparent=transparent)

    del loaded, ca, upstreams, settings  # theirs is to be given up when another takes their place
    signals: list[int] = []  # the first ends the session, the second the wait for requests in flight

    async def until_signalled() -> None:
        stop = asyncio.Event()

        def signalled(number: int) -> None:
            signals.append(number)
            stop.set()

        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, signalled, number)
        if events is not None and sys.stderr.isatty():
            print(f"sidecar: listening on {', '.join(listen_on)} (events: {events}); Ctrl-C ends it", file=sys.stderr)
        await stop.wait()
        control.stop()

    try:
        uvloop.run(
            serve(
                running,
                modes,
                listen=listen_on,
                more_addons=more_addons,
                guests=addon or (),
                until=until_signalled,
                drain_seconds=drain_seconds,
                hurry=lambda: len(signals) > 1,
                services=[
                    reloading(policy, signals=(signal.SIGHUP,)),
                    lambda engine: Rotator(engine.session, mounted).watch(),
                    control.service,
                ],
            )
        )
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)  # who is impatient still gets the summary, the last event
        running.close()
