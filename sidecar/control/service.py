"""Health and control as a service beside the proxy: gathers the facts, takes the fence check's result."""

import asyncio
import logging
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any, Final

from sidecar.control.http import serving
from sidecar.control.readiness import Facts, FenceMode, not_ready
from sidecar.control.server import Status, control_routes, health_routes
from sidecar.control.sockets import KeptReport
from sidecar.errors import CannotRun
from sidecar.events.model import CanaryFailed
from sidecar.fence.canaries import Canaries
from sidecar.fence.plan import Listener
from sidecar.fence.verdict import Report
from sidecar.hosts import Authority, IPAddress, parse_host
from sidecar.metrics import Gauges, Metrics
from sidecar.runtime.engine import Engine
from sidecar.runtime.listeners import bind

HEALTH: Final = (IPv4Address("127.0.0.1"), 14120)

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sockets:
    """Bound and listening; each is optional."""

    health: socket.socket | None = None
    control: socket.socket | None = None
    # The control port: held, so that nobody else can, and so that its refusal to the workload can be proven.
    held: Sequence[socket.socket] = ()


class Control:
    """
    One sidecar's health and control.

    Args:
        sockets: What to serve on.
        fence_mode: What the fence check's result is good for.
        path: Of the control socket; the report is kept beside it.
    """

    def __init__(self, sockets: Sockets, fence_mode: FenceMode, path: Path | None = None) -> None:
        self.canaries = Canaries()
        self._sockets, self._fence_mode, self._path = sockets, fence_mode, path
        self._kept = KeptReport(path) if path is not None else None
        self._report = self._kept.load() if self._kept is not None else None
        self._stopping = False

    def stop(self) -> None:
        """From now on not ready: said before anything is closed."""
        self._stopping = True

    @asynccontextmanager
    async def service(self, engine: Engine) -> AsyncIterator[None]:
        """Serve while the proxy runs."""
        loop, sockets = asyncio.get_running_loop(), self._sockets
        async with AsyncExitStack() as served:

            def facts() -> Facts:
                return self._facts(engine)

            if sockets.health is not None:
                metrics = Metrics(lambda: self._gauges(engine))
                engine.session.log.observe(metrics.count)
                await served.enter_async_context(serving(health_routes(facts, metrics), sockets.health))
            if sockets.control is not None:
                routes = control_routes(lambda: self._status(engine), self.canaries, lambda r: self._take(engine, r))
                await served.enter_async_context(serving(routes, sockets.control))
            if self._path is not None:
                served.callback(_remove, self._path)
            for held in sockets.held:
                server = await loop.create_server(_HangUp, sock=held)
                served.callback(server.close)
            yield

    def _take(self, engine: Engine, report: Report) -> None:
        self._report = report
        if self._kept is not None:
            self._kept.save(report)
        for failure in report.failures:
            engine.session.log.emit(
                CanaryFailed(
                    canary=failure.canary,
                    expected=failure.expected,
                    seen=f"{failure.verdict.value}: {failure.seen} ({failure.target})",
                )
            )

    def _facts(self, engine: Engine) -> Facts:
        session, servers = engine.session, list(engine.proxyserver.servers)
        ca = session.minter().ca
        return Facts(
            now=session.now(),
            listening=bool(servers) and all(instance.is_running for instance in servers),
            not_before=ca.not_before,
            not_after=ca.not_after,
            generation=session.policy().generation,
            fence_mode=self._fence_mode,
            fence=self._report,
            stopping=self._stopping,
            ca_problems=session.ca_problems,
            ca_pending=session.ca_pending,
            ca_expiring=session.expiry.near,
        )

    def _gauges(self, engine: Engine) -> Gauges:
        session, facts = engine.session, self._facts(engine)
        return Gauges(
            connections=session.log.connections,
            connections_open=len(session.ledger),
            requests_open=session.ledger.open_requests,
            policy_generation=facts.generation,
            ca_seconds=(facts.not_after - facts.now).total_seconds(),
            ca_reload_ok=not facts.ca_problems,
            events_dropped=session.log.dropped,
            ready=not not_ready(facts),
        )

    def _status(self, engine: Engine) -> Status:
        session = engine.session
        return Status(
            session=session.settings.session,
            facts=self._facts(engine),
            policy_hash=session.policy().hash,
            ca_fingerprint_sha256=session.minter().ca.fingerprint(),
            listeners=self._listeners(engine),
        )

    def _listeners(self, engine: Engine) -> tuple[Listener, ...]:
        found = [
            Listener(instance.mode.type_name, _text(address))
            for instance in engine.proxyserver.servers
            for address in instance.listen_addrs
        ]
        found += [Listener("control", _text(held.getsockname())) for held in self._sockets.held]
        if self._sockets.health is not None:
            found.append(Listener("health", _text(self._sockets.health.getsockname())))
        return tuple(dict.fromkeys(found))  # DNS listens twice on each address, by UDP and TCP


def open_health(listen: tuple[IPAddress, int] | None, *, required: bool) -> socket.socket | None:
    """
    The health listener, or None where it was not asked for and its port is taken.

    Args:
        listen: None for the usual place, `HEALTH`.
        required: A taken port is an error, also in the usual place: in a pod, probes ask there.

    Raises:
        CannotRun: It can't be bound.
    """
    address, port = listen or HEALTH
    try:
        return bind(address, port)
    except CannotRun as e:
        text = str(e).replace("--listen", "--health-listen", 1)
        if listen is not None or required:
            raise CannotRun(text) from None
        _log.info("health is not served: %s, or --health-listen none", text)
        return None


def _remove(path: Path) -> None:
    with suppress(OSError):  # a folder of root's, after --user
        path.unlink()


class _HangUp(asyncio.Protocol):
    def connection_made(self, transport: Any) -> None:
        transport.close()


def _text(address: Sequence[Any]) -> str:
    return str(Authority(parse_host(str(address[0])), address[1]))
