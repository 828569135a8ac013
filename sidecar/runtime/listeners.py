"""Listeners on sockets that we have bound ourselves: a taken port is an error before anything else starts."""

import asyncio
import errno
import os
import socket
from collections.abc import Callable
from typing import Any, ClassVar

from mitmproxy import ctx
from mitmproxy.proxy import layer, layers
from mitmproxy.proxy.context import Context
from mitmproxy.proxy.mode_servers import AsyncioServerInstance
from mitmproxy.proxy.mode_specs import ProxyMode

from sidecar.errors import CannotRun
from sidecar.hosts import IPAddress
from sidecar.runtime.driver import ClientWire, Driver, Shared
from sidecar.runtime.hooks import HookTable
from sidecar.runtime.lookups import Snapshot

BACKLOG = 1024


def bind(
    address: IPAddress, port: int, option: str = "--listen", kind: socket.SocketKind = socket.SOCK_STREAM
) -> socket.socket:
    """
    A bound socket, and a listening one if it is TCP's; port 0 lets the system choose. *option* is what asked for it.

    Raises:
        CannotRun: The port is taken or may not be bound here, or the host isn't an address of this machine.
    """
    family = socket.AF_INET6 if address.version == 6 else socket.AF_INET
    listener = socket.socket(family, kind)
    try:
        if kind == socket.SOCK_STREAM:  # two UDP sockets with this option would share the port
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind((str(address), port))
        if kind == socket.SOCK_STREAM:
            listener.listen(BACKLOG)
    except OSError as e:
        listener.close()
        why = {
            errno.EADDRINUSE: "the port is in use; choose another one, or stop what listens there",
            errno.EACCES: "not permitted; choose a port above 1023",
            errno.EADDRNOTAVAIL: "this machine has no such address; listen on 127.0.0.1 or ::1",
        }.get(e.errno or 0, e.strerror or str(e))
        raise CannotRun(f"{option} {address} port {port}: {why}") from None
    listener.setblocking(False)
    return listener


def address_of(listener: socket.socket) -> str:
    """``host:port``, with brackets around an IPv6 address."""
    host, port = listener.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def explicit(*listeners: socket.socket) -> str:
    """The mode of an explicit proxy on these sockets."""
    return "explicit:" + ",".join(str(listener.fileno()) for listener in listeners)


def redirected(*listeners: socket.socket) -> str:
    """The mode of a transparent proxy on these sockets."""
    return "redirect:" + ",".join(str(listener.fileno()) for listener in listeners)


def descriptors_of(data: str) -> list[int]:
    """The descriptors in a mode's data."""
    return [int(number) for number in data.split(",")]


class ExplicitMode(ProxyMode):
    """An explicit HTTP proxy on inherited descriptors: ``explicit:7,8``."""

    description = "explicit HTTP proxy"
    default_port = None
    transport_protocol: ClassVar[Any] = "tcp"

    def __post_init__(self) -> None:
        descriptors_of(self.data)


class ExplicitInstance(AsyncioServerInstance[ExplicitMode]):
    """Registers itself with mitmproxy by being defined."""

    def make_top_layer(self, context: Context) -> layer.Layer:
        return layers.modes.HttpProxy(context)

    def _begin(self, driver: Driver, _: Any) -> bool:
        driver.layer = self.make_top_layer(driver.layer.context)
        return True

    async def _start(self) -> None:
        self._servers = await serving(self, self._begin)


async def serving(instance: Any, begin: Callable[[Driver, Any], bool]) -> list[Any]:
    """Take connections on the descriptors of an instance's mode; *begin* gives each its first layer, or refuses it."""
    master, loop = ctx.master, asyncio.get_running_loop()
    pool = getattr(master.addons.get("egress_upstream_tls"), "pool", None)
    shared = Shared(Snapshot(ctx.options), HookTable(master.addons), instance.manager.connections, pool)
    return [
        await loop.create_server(
            lambda: ClientWire(shared, instance.mode, begin), sock=socket.socket(fileno=os.dup(number)), backlog=BACKLOG
        )
        for number in descriptors_of(instance.mode.data)
    ]
