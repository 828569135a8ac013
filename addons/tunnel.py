"""
Dialling through an upstream proxy: what mitmproxy gets is a connection to the destination, as from a direct dial.

Below mitmproxy, not by its own upstream mode: so each connection, whichever layer opens it (intercepted, plain HTTP,
passthrough, raw TCP), goes the same way, and a verdict is still asked for the destination, never for the proxy.
"""

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from typing import Any

from sidecar.hosts import Authority, IPAddress
from sidecar.upstream_proxy import NotThrough, UpstreamProxy

CONNECT_SECONDS = 30.0  # for the proxy to dial the destination

type Dial = Callable[..., Awaitable[tuple[Any, Any]]]


def context_for(proxy: UpstreamProxy, load_roots: Callable[[ssl.SSLContext], None]) -> ssl.SSLContext | None:
    """How a proxy of scheme ``https`` is verified: by the upstream roots, always; None for ``http``."""
    if proxy.scheme == "http":
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # which checks chain and name
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    load_roots(context)
    return context


async def dial_proxy(
    dial: Dial, proxy: UpstreamProxy, address: IPAddress, tls: ssl.SSLContext | None, target: Authority
) -> "Connect":
    """
    Connect to *proxy* at *address*.

    Raises:
        NotThrough: TLS with the proxy failed.
        OSError: The address can't be reached; another one may.
    """
    options: dict[str, Any] = {"ssl": tls, "server_hostname": proxy.host.name} if tls else {}
    try:
        _, connect = await dial(lambda: Connect(proxy, target), str(address), proxy.port, **options)
    except ssl.SSLError as e:
        why = e.verify_message if isinstance(e, ssl.SSLCertVerificationError) else e.reason
        raise proxy.failed(f"fails to prove itself by TLS: {why}; a private root is given with --upstream-ca") from None
    assert isinstance(connect, Connect)
    return connect


class Connect(asyncio.Protocol):
    """Asks the proxy to CONNECT to *target*, then makes way for the protocol that was to be connected."""

    transport: Any

    def __init__(self, proxy: UpstreamProxy, target: Authority) -> None:
        self._proxy, self._target = proxy, target
        self._received = bytearray()
        self._factory: Callable[[], Any] | None = None
        self._done: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    async def through(self, factory: Callable[[], Any]) -> tuple[Any, Any]:
        """
        Give transport and protocol, as ``create_connection`` does, once the proxy has let us through.

        Raises:
            NotThrough: It hasn't.
        """
        self._factory = factory
        self.transport.write(self._proxy.connect(self._target))
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                protocol = await self._done
        except TimeoutError:
            raise self._proxy.failed(f"did not answer CONNECT within {CONNECT_SECONDS:.0f} s") from None
        finally:
            if not self._done.done() or self._done.cancelled() or self._done.exception():
                self.transport.abort()
        tls = self.transport.get_extra_info("sslcontext") is not None
        return (_NoHalfClose(self.transport) if tls else self.transport), protocol

    def data_received(self, data: bytes) -> None:
        self._received += data
        if self._done.done():
            return
        if self._factory is None:
            self._done.set_exception(self._proxy.failed("speaks before it is asked; is it an HTTP proxy?"))
            return
        try:
            rest = self._proxy.answer(bytes(self._received), self._target)
        except NotThrough as e:
            self._done.set_exception(e)
            return
        if rest is None:
            return
        protocol = self._factory()
        self.transport.set_protocol(protocol)
        protocol.connection_made(self.transport)
        if rest:  # a destination that speaks first
            protocol.data_received(rest)
        self._done.set_result(protocol)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 (asyncio's signature)
        if not self._done.done():
            self._done.set_exception(self._proxy.failed("closed the connection instead of answering CONNECT"))


class _NoHalfClose:
    """A TLS transport to the proxy: asyncio can't close one direction of it, so the end comes with the other one's."""

    def __init__(self, transport: Any) -> None:
        self._transport = transport

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write_eof(self) -> None:
        pass
