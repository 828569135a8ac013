"""The dial guard: no socket opens but to an address that was checked, for a name that was judged, in the same task."""

import asyncio
import ssl
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from mitmproxy import connection

from addons import bounds
from addons.tunnel import dial_proxy
from sidecar.hosts import Authority, IPAddress, parse_host
from sidecar.problem import Failure
from sidecar.upstream_proxy import NotThrough, UpstreamProxy

RETRY_SECONDS = 0.5  # a failed dial sticks to mitmproxy's connection object; after this the next request dials again


class Refused(OSError):
    """A dial that no verdict covers. An OSError: mitmproxy catches nothing else there."""


@dataclass(frozen=True, slots=True)
class Checked:
    """What was judged for the dial of this very task: a target by name, and the addresses that were checked for it."""

    target: tuple[str, int]
    addresses: tuple[IPAddress, ...]
    through: "Through | None" = None


@dataclass(frozen=True, slots=True)
class Through:
    """The addresses are the upstream proxy's, which is asked for the target; `failed` is told why it isn't reached."""

    proxy: UpstreamProxy
    tls: ssl.SSLContext | None
    failed: Callable[[Failure], None]


# A hook is awaited in the task that dials, so this reaches that dial and no other.
checked_dial: ContextVar[Checked | None] = ContextVar("checked", default=None)


def guard_dials(loop: asyncio.AbstractEventLoop) -> None:
    """Make *loop* dial only what `Upstream.server_connect` has checked in the same task: those very addresses."""
    dial = loop.create_connection
    if getattr(dial, "guarded", False):
        return

    async def create_connection(factory: Any, host: Any = None, port: Any = None, **options: Any) -> Any:
        if host is None:  # sock=…: whoever dials so has checked the address itself
            return await dial(factory, host, port, **options)
        checked = checked_dial.get()
        if checked is None or checked.target != (host, port):
            raise Refused(f"{host}:{port} was not judged")
        error: OSError | None = None
        for address in checked.addresses:
            try:
                async with asyncio.timeout(seconds := bounds.limits.address_seconds):
                    if checked.through is None:
                        return await dial(factory, str(address), port, **options)
                    connect = await dial_proxy(
                        dial, checked.through.proxy, address, checked.through.tls, Authority(parse_host(host), port)
                    )
                return await connect.through(factory)
            except NotThrough as e:
                assert checked.through is not None
                checked.through.failed(e.failure)
                raise
            except TimeoutError:
                error = OSError(f"{address} port {port} did not answer within {seconds:g} s")
            except OSError as e:
                error = e
        if checked.through is not None and error is not None:
            error = checked.through.proxy.failed(f"can't be reached: {error}")
            checked.through.failed(error.failure)
        raise error or Refused(f"{host} has no address")

    create_connection.guarded = True  # type: ignore[attr-defined]
    loop.create_connection = create_connection  # type: ignore[assignment, method-assign]


def let_retry(server: connection.Server) -> None:
    """Forget that dial or handshake failed, after a while."""
    asyncio.get_running_loop().call_later(RETRY_SECONDS, setattr, server, "error", None)
