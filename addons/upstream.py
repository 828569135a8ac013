"""Server-side: resolve once, check every address, let one of those very addresses be dialled."""

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable, Mapping, Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address

from mitmproxy.proxy import server_hooks
from OpenSSL import SSL

from addons import internals
from addons.dial import Checked, Refused, Through, checked_dial, let_retry
from addons.guard import fails_closed
from addons.idle import keep_alive
from addons.tunnel import context_for
from sidecar.addresses import IPNetwork, guard
from sidecar.hosts import Authority, Host, IPAddress, parse_host
from sidecar.ledger import Ledger
from sidecar.policy import Policy
from sidecar.problem import Failure
from sidecar.reasons import Reason
from sidecar.upstream_proxy import UpstreamProxy, stands_for


class _OwnAddresses:
    """The addresses of this machine's links: those that a socket can be bound to. Loopback is a kind of its own."""

    def __contains__(self, address: object) -> bool:
        assert isinstance(address, IPv4Address | IPv6Address)
        if address.is_loopback:
            return False
        with socket.socket(socket.AF_INET if address.version == 4 else socket.AF_INET6, socket.SOCK_DGRAM) as probe:
            try:
                probe.bind((str(address), 0))
            except OSError:
                return False
            return True


OWN_ADDRESSES = _OwnAddresses()

type Resolve = Callable[[str, int], Awaitable[list[IPAddress]]]


def system_resolver(pinned: Mapping[tuple[str, int | None], IPAddress]) -> Resolve:
    """Names by *pinned* (host and port, or host alone), else by the system; addresses as they come, each once."""

    async def resolve(host: str, port: int) -> list[IPAddress]:
        if (address := pinned.get((host, port)) or pinned.get((host, None))) is not None:
            return [address]
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=1)  # SOCK_STREAM
        return list(dict.fromkeys(ip_address(str(entry[4][0]).partition("%")[0]) for entry in found))

    return resolve


@fails_closed
class Upstream:
    """
    Guards what is dialled.

    Args:
        policy: Gives the policy in force: its exceptions from the address guard count.
        ledger: Knows which upstreams a verdict has cleared.
        resolve: Name and port to addresses; asked once for each dial.
        roots: Loads the trusted roots into a context: of an `https` proxy's own TLS.
        proxy: Where to go instead of to a destination, if anywhere.
    """

    name = "egress_upstream"

    def __init__(
        self,
        policy: Callable[[], Policy],
        ledger: Ledger,
        resolve: Resolve,
        roots: Callable[[SSL.Context | ssl.SSLContext], None],
        proxy: UpstreamProxy | None = None,
    ) -> None:
        self.ledger = ledger
        self._policy, self._resolve = policy, resolve
        self._proxy = proxy
        self._proxy_tls = context_for(proxy, roots) if proxy else None

    async def server_connect(self, data: server_hooks.ServerConnectionHookData) -> None:
        checked_dial.set(None)
        if data.server.error:
            return  # another addon has refused it
        if not data.server.address or data.server.transport_protocol != "tcp":
            data.server.error = "only TCP is dialled"
            return
        host, port = data.server.address[:2]
        record = self.ledger.of(data.client.id)
        if (host, port) not in record.cleared:
            raise Refused(f"{host}:{port} was not judged")
        target, by_rule = parse_host(host), record.cleared[host, port]
        through: Through | None = None
        if self._proxy is not None and self._proxy.takes(target):
            through = Through(self._proxy, self._proxy_tls, lambda failure: record.failed(host, port, failure))
            addresses, failure = await self._proxy_addresses(self._proxy, target, by_rule)
        else:
            addresses, failure = await self._addresses(target, port, by_rule)
        if (host, port) not in record.cleared:
            raise Refused(f"{host}:{port} was denied while it was being resolved")
        if failure is not None:
            record.failed(host, port, failure)
            data.server.error = failure.detail
            return
        checked_dial.set(Checked((host, port), addresses, through))

    async def _addresses(
        self, host: Host, port: int, by_rule: tuple[IPNetwork, ...]
    ) -> tuple[tuple[IPAddress, ...], Failure | None]:
        if host.address is not None:
            found = [host.address]
        else:
            try:
                found = await self._resolve(host.name, port)
            except OSError as e:
                return (), Failure(Reason.UPSTREAM_UNRESOLVED, f"{host} can't be resolved: {e.strerror or e}")
        if not found:
            return (), Failure(Reason.UPSTREAM_UNRESOLVED, f"{host} has no address")
        return tuple(found), self._guarded(host, found, by_rule)

    async def _proxy_addresses(
        self, proxy: UpstreamProxy, host: Host, by_rule: tuple[IPNetwork, ...]
    ) -> tuple[tuple[IPAddress, ...], Failure | None]:
        """The proxy's own, wherever they lie: the operator has named it. What the proxy makes of a name isn't seen."""
        address = stands_for(host)
        if address is not None and (failure := self._guarded(host, [address], by_rule)) is not None:
            return (), failure
        if proxy.host.address is not None:
            return (proxy.host.address,), None
        try:
            found = await self._resolve(proxy.host.name, proxy.port)
        except OSError as e:
            return (), proxy.failed(f"can't be resolved: {e.strerror or e}").failure
        return tuple(found), None if found else proxy.failed("has no address").failure

    def _guarded(self, host: Host, found: Sequence[IPAddress], by_rule: tuple[IPNetwork, ...]) -> Failure | None:
        allowed = (*self._policy().network.allow_addresses, *by_rule)
        for address in found:
            # One bad address refuses the name: an answer that mixes public and private ones is no accident.
            if (kind := guard(address, allowed, OWN_ADDRESSES)) is not None:
                detail = f"{host} leads to {address}, which is {kind.replace('_', ' ')}"
                return Failure(Reason.PRIVATE_ADDRESS, detail)
        return None

    def server_connected(self, data: server_hooks.ServerConnectionHookData) -> None:
        keep_alive(internals.socket_of(data.client.id, data.server))
        if data.server.address and data.server.peername:
            record = self.ledger.of(data.client.id)
            host, port = data.server.address[:2]
            record.failures.pop((host, port), None)
            record.upstream_address = str(Authority(parse_host(data.server.peername[0]), data.server.peername[1]))

    def server_connect_error(self, data: server_hooks.ServerConnectionHookData) -> None:
        if data.server.address:
            record = self.ledger.of(data.client.id)
            host, port = data.server.address[:2]
            if (host, port) not in record.failures:
                detail = f"{host} port {port} can't be reached: {data.server.error}"
                record.failed(host, port, Failure(Reason.UPSTREAM_UNREACHABLE, detail))
        let_retry(data.server)
