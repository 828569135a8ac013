"""mitmproxy as an engine: only the addons that are needed, our own listeners, a stop that lets requests finish."""

import asyncio
import logging
import socket
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from mitmproxy import options
from mitmproxy.addons.disable_h2c import DisableH2C
from mitmproxy.addons.proxyserver import Proxyserver
from mitmproxy.master import Master

from addons import internals
from addons.egress import FORCED, addons_of
from addons.upstream import guard_dials
from sidecar.errors import CannotRun
from sidecar.runtime.listeners import address_of
from sidecar.runtime.session import Session

_log = logging.getLogger(__name__)
_END_SECONDS = 2.0  # for connections to write their closing records, once they are cancelled


async def serve(
    session: Session,
    listeners: Sequence[socket.socket],
    *,
    until: Callable[[], Awaitable[None]],
    drain_seconds: float,
) -> None:
    """
    Run a session on bound *listeners* until *until* returns; then let open requests finish, at most *drain_seconds*.

    Raises:
        CannotRun: mitmproxy couldn't start its listeners.
    """
    loop = asyncio.get_running_loop()
    internals.install()
    guard_dials(loop)
    master = Master(options.Options(), event_loop=loop)
    proxyserver = Proxyserver()
    # Options exist once the addon that declares them is loaded.
    master.addons.add(*addons_of(session), proxyserver, DisableH2C())
    descriptors = ",".join(str(listener.fileno()) for listener in listeners)
    master.options.update(**FORCED, mode=[f"explicit:{descriptors}"])
    loop.set_task_factory(_eager)
    stop = asyncio.ensure_future(until())
    try:
        # Instead of Master.run(), which polls a log for errors at start and ends the process by itself.
        await proxyserver.setup_servers()
        if not all(instance.is_running for instance in proxyserver.servers):
            raise CannotRun("the listeners could not be started; the log above says why")
        session.announce(tuple(address_of(listener) for listener in listeners))
        await master.running()
        await stop
        await proxyserver.servers.update([])  # no new connections
        await _until(lambda: not session.ledger.open_requests, drain_seconds)
        if left := session.ledger.open_requests:
            _log.warning("%d requests had not finished after %.1f s and were ended", left, drain_seconds)
    finally:
        stop.cancel()
        _end_connections(proxyserver)
        await _until(lambda: not proxyserver.connections, _END_SECONDS)
        await master.done()


_eager_task = asyncio.create_eager_task_factory(asyncio.Task)


def _eager(loop: asyncio.AbstractEventLoop, coro: Any, *, eager_start: bool = True, **options: Any) -> Any:
    # uvloop passes eager_start on, which asyncio's own factory sets by itself.
    del eager_start
    return _eager_task(loop, coro, **options)


async def _until(done: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not done() and time.monotonic() < deadline:  # noqa: ASYNC110 - counted by code that knows of no event
        await asyncio.sleep(0.01)


def _end_connections(proxyserver: Proxyserver) -> None:
    handlers: list[Any] = list(proxyserver.connections.values())
    for handler in handlers:
        if (transport := handler.transports.get(handler.client)) is not None and transport.handler is not None:
            transport.handler.cancel("the sidecar stops")
