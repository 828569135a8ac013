"""``sidecar exec``: a temporary session around one command."""

import sys
import tempfile
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path
from typing import Annotated

import typer
import uvloop

from sidecar import hardening, logs
from sidecar.cli.options import (
    Addons,
    AddUpstreamCa,
    DrainSeconds,
    EventLevel,
    LimitList,
    LogLevel,
    NoProxyList,
    OwnLogLevel,
    PolicyFile,
    Resolve,
    UpstreamCa,
    UpstreamProxyCredentials,
    UpstreamProxyUrl,
    words,
)
from sidecar.enforce.fence import NO_PROXY, Fence
from sidecar.errors import CannotRun
from sidecar.events.sinks import FileSink, StreamSink
from sidecar.limits import parse_limits
from sidecar.policy import load_policy

_COOPERATIVE = (
    "sidecar: the command is cooperative: a program that ignores the proxy variables isn't held (events: {events}); "
    "--enforce holds it"
)
_LOOPBACK = "127.0.0.1"
_ENFORCED = "sidecar: the command's network has no way out but the sidecar (events: {events})"


def exec_(
    command: Annotated[list[str], typer.Argument(metavar="COMMAND", help="What to run, with its arguments.")],
    policy: PolicyFile = Path("policy.yaml"),
    enforce: Annotated[
        bool,
        typer.Option(
            "--enforce",
            envvar="EGRESS_ENFORCE",
            help="Run COMMAND in a user and network namespace of its own, where only the sidecar can be reached. Needs "
            "no root. Files aren't fenced, nor Unix sockets among them (docker.sock, ssh-agent, D-Bus).",
        ),
    ] = False,
    upstream_ca: UpstreamCa = None,
    add_upstream_ca: AddUpstreamCa = None,
    resolve: Resolve = None,
    addon: Addons = None,
    upstream_proxy: UpstreamProxyUrl = None,
    upstream_proxy_credentials: UpstreamProxyCredentials = None,
    no_proxy: NoProxyList = None,
    events: Annotated[
        Path | None,
        typer.Option(envvar="EGRESS_EVENTS", metavar="FILE", help="Append events to FILE. Default: standard error."),
    ] = None,
    event_level: EventLevel = LogLevel.INFO,
    log_level: OwnLogLevel = LogLevel.WARNING,
    validity_hours: Annotated[
        int,
        typer.Option(
            envvar="EGRESS_VALIDITY_HOURS",
            min=1,
            max=876_000,
            help="Validity of the CA; after it and an hour more, requests are refused.",
        ),
    ] = 24,
    drain_seconds: DrainSeconds = 2.0,
    limit: LimitList = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No summary and no notice, only events.")] = False,
) -> None:
    """
    Run COMMAND with its own sidecar, and give its exit code.

    The CA's key stays in memory; the trust bundle lies in a private folder while the command runs. The command gets
    proxy and trust variables, so it must be one that honours them: others aren't held, unless by --enforce.
    """
    logs.configure(log_level)
    hardening.conceal()  # the CA's key will be in this process's memory
    limits = hardening.within_descriptors(parse_limits(words(limit)), hardening.descriptors())
    loaded = load_policy(policy)
    with ExitStack() as stack:
        fence = stack.enter_context(Fence.build((_LOOPBACK, 0))) if enforce else None  # before there are secrets

        from sidecar.runtime.slim import slim

        slim()

        from sidecar.child import Child, environment
        from sidecar.pki.session_ca import issue_session_ca
        from sidecar.runtime.engine import serve
        from sidecar.runtime.listeners import address_of, bind, explicit
        from sidecar.runtime.session import Session, Settings, parse_resolve, read_upstream_proxy
        from sidecar.trust.files import client_files
        from sidecar.trust.load import MOZILLA, load_anchors
        from sidecar.upstreams.files import load_upstreams
        from sidecar.upstreams.roots import RootFiles

        pinned = parse_resolve(words(resolve))
        through = read_upstream_proxy(upstream_proxy, upstream_proxy_credentials, no_proxy or ())
        upstreams = load_upstreams(loaded, RootFiles(upstream_ca, add_upstream_ca))
        name = f"exec-{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
        ca = issue_session_ca(common_name=name, now=datetime.now(UTC), validity=timedelta(hours=validity_hours))
        listener = fence.listeners[0] if fence else bind(IPv4Address(_LOOPBACK), 0)
        queue = (limits.event_lines, limits.event_bytes)
        sink = FileSink(events, *queue) if events else StreamSink(sys.stderr.fileno(), *queue)
        settings = Settings(
            policy=loaded,
            upstreams=upstreams,
            ca=ca,
            sink=sink,
            session=name,
            level=event_level.value,
            pinned=pinned,
            upstream_proxy=through,
            limits=limits,
        )
        session = Session(settings)
        if not quiet:
            notice = _ENFORCED if fence else _COOPERATIVE
            print(notice.format(events=events or "standard error"), file=sys.stderr)

        trust = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="egress-")))
        anchors, _ = load_anchors([ca.root], MOZILLA, datetime.now(UTC))
        for file, content in client_files(anchors).items():
            (trust / file).write_bytes(content)
        proxy = f"http://{address_of(listener)}"
        child = Child(command, environment(trust, proxy, no_proxy=NO_PROXY if fence else ""), fence)
        try:
            uvloop.run(
                serve(
                    session,
                    [explicit(listener)],
                    listen=[address_of(listener)],
                    until=child.run,
                    drain_seconds=drain_seconds,
                    guests=addon or (),
                )
            )
        finally:
            summary = session.close()
    if not quiet:
        from rich.console import Console

        from sidecar.cli.tables import summary_table

        Console(stderr=True).print(summary_table(summary))
    if child.error is not None:
        raise CannotRun(child.error)
    raise typer.Exit(child.exit_code)
