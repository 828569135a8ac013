"""mitmproxy as an engine: only the addons that are needed, our own listeners, a stop that lets requests finish."""

import asyncio
import gc
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mitmproxy import options
from mitmproxy.addons.disable_h2c import DisableH2C
from mitmproxy.addons.proxyserver import Proxyserver
from mitmproxy.hooks import ConfigureHook
from mitmproxy.master import Master

import sidecar.runtime.listeners  # noqa: F401 - registers our modes with mitmproxy
from addons import bounds, internals
from addons.dial import guard_dials
from addons.egress import FORCED, addons_of, check_options
from addons.guests import AddonError, AfterGuests, BeforeGuests, load_guests
from sidecar.errors import CannotRun
from sidecar.runtime import heap, lookups, plumbing, tls_io
from sidecar.runtime.session import Session

_log = logging.getLogger(__name__)
_END_SECONDS = 2.0  # for connections to write their closing records, once they are cancelled


@dataclass(frozen=True, slots=True)
class Engine:
    """A running engine, as its services see it."""

    session: Session
    proxyserver: Proxyserver

    def handlers(self) -> dict[str, Any]:
        """mitmproxy's connection handlers by client connection id; private to mitmproxy, so touched in few places."""
        return {str(key): handler for key, handler in self.proxyserver.connections.items()}

    def end_connection(self, connection_id: str, why: str) -> None:
        """Close a client connection and everything that hangs on it, at once; its records are closed by the hooks."""
        internals.end_connection(connection_id, why)


type Service = Callable[[Engine], AbstractAsyncContextManager[None]]
"""Runs beside the proxy: entered before the session is announced, left when it has been drained."""


async def serve(
    session: Session,
    modes: Sequence[str],
    *,
    listen: Sequence[str],
    until: Callable[[], Awaitable[None]],
    drain_seconds: float,
    hurry: Callable[[], bool] = lambda: False,
    services: Sequence[Service] = (),
    more_addons: Sequence[object] = (),
    guests: Sequence[Path] = (),
) -> None:
    """
    Run a session in *modes* until *until* returns; then let open requests finish, at most *drain_seconds*.

    Args:
        session: What it runs with.
        modes: Of mitmproxy, or of `sidecar.runtime.listeners` on sockets that are bound.
        listen: The listeners' addresses, for the ``session_started`` event.
        until: Waits for whatever ends the session.
        drain_seconds: How long requests in flight may take to finish.
        hurry: Says that they aren't to be waited for any longer.
        services: Run beside the proxy.
        more_addons: Stand in front of the session's own, as those of transparent mode do.
        guests: Files with addons of the user's, which stand behind them.

    Raises:
        CannotRun: mitmproxy couldn't start its listeners.
        AddonError: A guest can't be used.
    """
    loop = asyncio.get_running_loop()
    heap.install()
    install()
    bounds.use(session.settings.limits)
    guard_dials(loop)
    master = Master(options.Options(), event_loop=loop)
    proxyserver = Proxyserver()
    # Options exist once the addon that declares them is loaded.
    master.addons.add(*more_addons, *addons_of(session), proxyserver, DisableH2C())
    master.options.update(**FORCED, mode=list(modes), tcp_timeout=session.settings.limits.idle_seconds)
    if guests:
        add_guests(master, guests, session)
    loop.set_task_factory(_eager)
    stop = asyncio.ensure_future(until())
    engine = Engine(session, proxyserver)
    try:
        async with AsyncExitStack() as running:
            for service in services:
                await running.enter_async_context(service(engine))
            # Instead of Master.run(), which polls a log for errors at start and ends the process by itself.
            await proxyserver.setup_servers()
            if not all(instance.is_running for instance in proxyserver.servers):
                raise CannotRun("the listeners could not be started; the log above says why")
            session.announce(tuple(listen))
            session.expiry.start()
            await master.running()
            settle()
            await stop
            await proxyserver.servers.update([])  # no new connections
            began = time.monotonic()
            await _until(lambda: not session.ledger.open_requests or hurry(), drain_seconds)
            if left := session.ledger.open_requests:
                waited = time.monotonic() - began
                _log.warning("%d request(s) had not finished after %.1f s and were ended", left, waited)
    finally:
        stop.cancel()
        session.expiry.stop()
        session.ledger.shut_down()
        session.pool.clear()
        for connection_id in list(proxyserver.connections):
            engine.end_connection(str(connection_id), "the sidecar stops")
        await _until(lambda: not proxyserver.connections, _END_SECONDS)
        await master.done()


def install() -> None:
    """Have mitmproxy's parts replaced, those that matter under stock mitmproxy as well and our engine's own."""
    for part in (internals, lookups, plumbing, tls_io):
        part.install()


def add_guests(master: Master, files: Sequence[Path], session: Session) -> None:
    """
    Put addons of the user's between what keeps and what checks the verdict.

    Raises:
        AddonError: One of them can't be loaded or configured.
    """
    after = AfterGuests(session.policy, session.ledger, check_options)
    master.addons.add(BeforeGuests())
    for file in files:
        guests = load_guests(file, session.ledger)
        try:
            master.addons.add(*guests)
            for guest in guests:
                master.addons.invoke_addon_sync(guest, ConfigureHook(set(master.options.keys())))
            check_options()
        except Exception as e:
            raise AddonError(f"--addon {file}: {type(e).__name__}: {e}; mend it, or leave it out") from None
    master.addons.add(after)


def settle() -> None:
    """
    What has been made by now stays: the garbage collector needn't look at it again, and is on from here.

    Policies, contexts and CAs are given up by a reload or a rotation all the same: nothing of theirs is a cycle, so
    they end with the last reference. What the imports have left is little, and looking for it keeps the first request
    waiting for 30 ms.
    """
    gc.freeze()
    gc.enable()


_eager_task = asyncio.create_eager_task_factory(asyncio.Task)


def _eager(loop: asyncio.AbstractEventLoop, coro: Any, *, eager_start: bool = True, **options: Any) -> Any:
    # uvloop passes eager_start on, which asyncio's own factory sets by itself.
    del eager_start
    return _eager_task(loop, coro, **options)


async def _until(done: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not done() and time.monotonic() < deadline:  # noqa: ASYNC110 - counted by code that knows of no event
        await asyncio.sleep(0.01)
