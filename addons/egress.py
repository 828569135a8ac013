"""
The egress addons as one: ``mitmdump -s addons/egress.py`` and ``mitmweb -s addons/egress.py`` load this file.

Options (``--set egress_policy=policy.yaml``) or the variables ``EGRESS_POLICY``, ``EGRESS_CA_DIR``,
``EGRESS_UPSTREAM_CA``, ``EGRESS_ADD_UPSTREAM_CA``, ``EGRESS_EVENTS``, ``EGRESS_SESSION``, ``EGRESS_RESOLVE`` and
``EGRESS_LIMIT`` say what `sidecar run` says by flags.
"""

import asyncio
import os
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mitmproxy import connection, ctx, exceptions
from mitmproxy.addonmanager import Loader
from mitmproxy.proxy import mode_specs, server_hooks

from addons import bounds, internals
from addons.admission import Admission
from addons.dial import guard_dials
from addons.gate import Gate
from addons.protocol import Protocol
from addons.recorder import Recorder
from addons.session_ca import SessionCaAddon
from addons.upstream import Upstream, system_resolver
from addons.upstream_tls import UpstreamTls
from sidecar import hardening
from sidecar.errors import SidecarError
from sidecar.events.sinks import FileSink, StreamSink
from sidecar.limits import parse_limits
from sidecar.pki.coverage import check_coverage
from sidecar.policy import load_policy
from sidecar.runtime.rotation import Mounted, Rotator
from sidecar.runtime.session import Session, Settings, parse_resolve
from sidecar.secrets import load_ca
from sidecar.upstreams.files import load_upstreams
from sidecar.upstreams.roots import RootFiles

# What our promises rest on. Under stock mitmproxy these are set at start, and changing them later is refused.
FORCED: dict[str, Any] = {
    "connection_strategy": "lazy",  # no dial before a verdict
    "rawtcp": False,  # an Upgrade to something that isn't WebSocket isn't a tunnel
    "validate_inbound_headers": True,
    "store_streamed_bodies": False,
    "http2_ping_keepalive": 0,  # addons.idle says why
}
# Options that undo a promise, and the only value of each that doesn't.
_HARMLESS: dict[str, Any] = {
    "ssl_insecure": False,
    "ignore_hosts": [],
    "allow_hosts": [],
    "tcp_hosts": [],
    "udp_hosts": [],
    "map_remote": [],
    "map_local": [],
    "client_replay": [],
    "emudhra": None,
    "emudhra_old": None,
}


def addons_of(session: Session) -> list[object]:
    """The addons of a session, in the order of each hook: the recorder opens what the others decide on."""
    resolve, proxy = system_resolver(session.settings.pinned), session.settings.upstream_proxy
    return [
        Recorder(session.ledger),
        Admission(session.ledger, session.settings.limits),
        Protocol(session.policy, session.ledger, session.ca_expired),
        Gate(session.policy, session.ledger, session.ca_expired),
        SessionCaAddon(session.minter, session.ledger, session.now, session.ca_expired),
        Upstream(session.policy, session.ledger, resolve, session.upstreams.roots.load, proxy),
        UpstreamTls(session.ledger, lambda: session.upstreams, session.sessions, session.pool),
    ]


class NotReady:
    """Refuses everything: what stands in the chain before the session is loaded, and if it never is."""

    name = "egress_not_ready"

    def client_connected(self, client: connection.Client) -> None:
        client.error = "the egress sidecar isn't ready"

    def server_connect(self, data: server_hooks.ServerConnectionHookData) -> None:
        data.server.error = "the egress sidecar isn't ready"


class Egress:
    """What stock mitmproxy loads: checks its options, then puts the session's addons into the chain."""

    name = "egress"

    def __init__(self) -> None:
        self.addons: Sequence[object] = [NotReady()]
        self._session: Session | None = None
        self._following: asyncio.Future[None] | None = None

    def load(self, loader: Loader) -> None:
        for option, variable, text in (
            ("egress_policy", "EGRESS_POLICY", "The policy file."),
            ("egress_ca_dir", "EGRESS_CA_DIR", "The folder with the session CA's certificate and key."),
            ("egress_upstream_ca", "EGRESS_UPSTREAM_CA", "PEM file of roots: upstreams are verified by them alone."),
            (
                "egress_add_upstream_ca",
                "EGRESS_ADD_UPSTREAM_CA",
                "PEM file of roots: upstreams are verified by them, too.",
            ),
            ("egress_events", "EGRESS_EVENTS", "File to append events to; standard output if empty."),
            ("egress_session", "EGRESS_SESSION", "The session's id; the CA's common name if empty."),
            ("egress_resolve", "EGRESS_RESOLVE", "NAME:ADDRESS, separated by spaces: addresses of names."),
            ("egress_limit", "EGRESS_LIMIT", "NAME=VALUE, separated by spaces: limits that `sidecar limits` lists."),
        ):
            loader.add_option(option, str, os.environ.get(variable, ""), text)
        if getattr(ctx.master.addons.get("tlsconfig"), "certstore", None) is not None:
            _refuse_to_start("mitmproxy has made a CA of its own; leave out the options confdir, certs and key_size")
        internals.install()
        guard_dials(asyncio.get_running_loop())
        # Stock TLS would create an RSA CA in running(); the onboarding app would answer on mitm.it.
        for stock in ("tlsconfig", "onboarding"):
            if (addon := ctx.master.addons.get(stock)) is not None:
                ctx.master.addons.remove(addon)
        ctx.options.update(**FORCED)

    def configure(self, updated: set[str]) -> None:
        self._check_options()
        if self._session is not None:
            if any(name.startswith("egress_") for name in updated):
                raise exceptions.OptionsError("egress options are read once, at start; restart to change them")
            return
        if not ctx.options.egress_policy:
            return  # it may come with a later update; running() refuses if it didn't
        try:
            self._session = Session(_settings())
        except SidecarError as e:
            _refuse_to_start(str(e))
        else:
            self.addons = addons_of(self._session)
            bounds.use(self._session.settings.limits)
            ctx.options.update(tcp_timeout=self._session.settings.limits.idle_seconds)

    def running(self) -> None:
        if self._session is None:
            _refuse_to_start("no policy; give --set egress_policy=FILE or EGRESS_POLICY")
            return
        proxyserver: Any = ctx.master.addons.get("proxyserver")
        self._session.announce(tuple(f"{host}:{port}" for host, port, *_ in proxyserver.listen_addrs()))
        self._session.expiry.start()
        self._following = asyncio.ensure_future(_follow(self._session, Path(ctx.options.egress_ca_dir)))

    def done(self) -> None:
        if self._following is not None:
            self._following.cancel()
        if self._session is not None:
            self._session.close()
            self._session = None
            self.addons = [NotReady()]

    def _check_options(self) -> None:
        check_options()
        for spec in ctx.options.mode:
            if not isinstance(mode_specs.ProxyMode.parse(spec), mode_specs.RegularMode):
                raise exceptions.OptionsError(f"mode {spec} isn't supported with the egress addons; use regular")


def check_options() -> None:
    """
    Refuse what would undo a promise.

    Raises:
        OptionsError: It is set; mitmproxy then takes the change back.
    """
    for name, value in (FORCED | _HARMLESS).items():
        if name in ctx.options and (getattr(ctx.options, name) or value) != value:
            raise exceptions.OptionsError(f"{name} would undo what the egress sidecar promises; leave it out")


async def _follow(session: Session, ca_dir: Path) -> None:
    """Until it is cancelled: the CA that is mounted signs."""
    async with Rotator(session, Mounted(ca_dir)).watch():
        await asyncio.Event().wait()


def _settings() -> Settings:
    options = ctx.options
    if not options.egress_ca_dir:
        raise SidecarError("no session CA; give --set egress_ca_dir=FOLDER or EGRESS_CA_DIR")
    ca = load_ca(Path(options.egress_ca_dir), datetime.now(UTC))
    policy = load_policy(Path(options.egress_policy))
    check_coverage(policy, ca)
    alone, besides = options.egress_upstream_ca, options.egress_add_upstream_ca
    limits = hardening.within_descriptors(parse_limits(options.egress_limit.split()), hardening.descriptors())
    queue = (limits.event_lines, limits.event_bytes)
    return Settings(
        policy=policy,
        upstreams=load_upstreams(policy, RootFiles(Path(alone) if alone else None, Path(besides) if besides else None)),
        ca=ca,
        sink=FileSink(Path(options.egress_events), *queue)
        if options.egress_events
        else StreamSink(sys.stdout.fileno(), *queue),
        session=options.egress_session or ca.common_name,
        pinned=parse_resolve(options.egress_resolve.split()),
        limits=limits,
    )


def _refuse_to_start(text: str) -> None:
    print(f"sidecar: {text}", file=sys.stderr)
    raise SystemExit(2)


addons = [Egress()]
