"""Server-side: resolve once, check every address, dial one of those very addresses; verify the upstream, always."""

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any

from cryptography import x509
from mitmproxy import connection, tls
from mitmproxy.proxy import server_hooks
from OpenSSL import SSL, crypto

from addons import internals
from addons.guard import fails_closed
from addons.idle import keep_alive
from addons.session_ca import CIPHERS
from addons.tunnel import context_for, dial_proxy
from sidecar.addresses import IPNetwork, guard
from sidecar.handshakes import diagnose_server
from sidecar.hosts import Authority, Host, IPAddress, parse_host
from sidecar.ledger import Ledger
from sidecar.pki.strict import objection
from sidecar.policy import Policy
from sidecar.problem import Failure
from sidecar.reasons import Reason
from sidecar.upstream_proxy import NotThrough, UpstreamProxy, stands_for

RETRY_SECONDS = 0.5  # a failed dial sticks to mitmproxy's connection object; after this the next request dials again
ADDRESS_SECONDS = 10.0  # for one address to answer, before the next is tried


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
_checked: ContextVar[Checked | None] = ContextVar("checked", default=None)


def guard_dials(loop: asyncio.AbstractEventLoop) -> None:
    """Make *loop* dial only what `Upstream.server_connect` has checked in the same task: those very addresses."""
    dial = loop.create_connection
    if getattr(dial, "guarded", False):
        return

    async def create_connection(factory: Any, host: Any = None, port: Any = None, **options: Any) -> Any:
        if host is None:  # sock=…: whoever dials so has checked the address itself
            return await dial(factory, host, port, **options)
        checked = _checked.get()
        if checked is None or checked.target != (host, port):
            raise Refused(f"{host}:{port} was not judged")
        error: OSError | None = None
        for address in checked.addresses:
            try:
                async with asyncio.timeout(ADDRESS_SECONDS):
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
                error = OSError(f"{address} port {port} did not answer within {ADDRESS_SECONDS:.0f} s")
            except OSError as e:
                error = e
        if checked.through is not None and error is not None:
            error = checked.through.proxy.failed(f"can't be reached: {error}")
            checked.through.failed(error.failure)
        raise error or Refused(f"{host} has no address")

    create_connection.guarded = True  # type: ignore[attr-defined]
    loop.create_connection = create_connection  # type: ignore[assignment, method-assign]


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
    Guards what is dialled and verifies who answers.

    Args:
        policy: Gives the policy in force: its exceptions from the address guard count.
        ledger: Knows which upstreams a verdict has cleared.
        resolve: Name and port to addresses; asked once for each dial.
        roots: Loads the trusted roots into a context.
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
        self._context = SSL.Context(SSL.TLS_CLIENT_METHOD)
        self._context.set_min_proto_version(SSL.TLS1_2_VERSION)
        self._context.set_cipher_list(CIPHERS)
        self._context.set_verify(SSL.VERIFY_PEER, _verified)
        self._context.set_options(SSL.OP_NO_RENEGOTIATION)
        roots(self._context)
        self._proxy = proxy
        self._proxy_tls = context_for(proxy, roots) if proxy else None

    async def server_connect(self, data: server_hooks.ServerConnectionHookData) -> None:
        _checked.set(None)
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
        _checked.set(Checked((host, port), addresses, through))

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
        _let_retry(data.server)

    def tls_start_server(self, tls_start: tls.TlsData) -> None:
        server, client = tls_start.conn, tls_start.context.client
        assert isinstance(server, connection.Server) and server.address
        host = parse_host(server.address[0])  # the judged name; an SNI is only ever equal to it
        upstream = SSL.Connection(self._context)
        upstream.set_app_data(_Chain())
        if host.address is not None:
            server.sni = None  # RFC 6066, section 3: an address is no server name
            _expect_address(upstream, host.address)
        else:
            server.sni = host.name
            upstream.set_tlsext_host_name(host.name.encode())
            _expect_name(upstream, host.name)
        offers = tuple(offer for offer in client.alpn_offers if offer in (b"h2", b"http/1.1")) or (b"http/1.1",)
        server.alpn_offers = offers
        upstream.set_alpn_protos(list(offers))
        upstream.set_connect_state()
        tls_start.ssl_conn = upstream

    def tls_failed_server(self, tls_failed: tls.TlsData) -> None:
        server = tls_failed.conn
        assert isinstance(server, connection.Server) and server.address
        host, port = server.address[:2]
        record = self.ledger.find(tls_failed.context.client.id)
        if record is None:
            return  # the client has gone, and this is the end of what was begun for it
        words = server.error or ""
        if tls_failed.ssl_conn is not None and (ours := tls_failed.ssl_conn.get_app_data().objection) is not None:
            words = f"Certificate verify failed: {ours}"  # OpenSSL's own words are "ok": it had no objection
        diagnosis = diagnose_server(words)
        detail = f"{host} port {port}: {words}"
        if (host, port) not in record.failures:
            record.failed(host, port, Failure(Reason.UPSTREAM_TLS, detail))
        self.ledger.handshake_failed(record, diagnosis, upstream=Authority(parse_host(host), port))
        _let_retry(server)


@dataclass(slots=True)
class _Chain:
    """What OpenSSL has verified of one handshake's chain, by depth; and what we object to in it."""

    certificates: dict[int, bytes] = field(default_factory=dict)  # DER
    objection: str | None = None


def _verified(upstream: SSL.Connection, certificate: crypto.X509, _error: int, depth: int, ok: int) -> bool:
    """OpenSSL's verdict on one certificate, from the root down; at the leaf, ours on the whole chain."""
    if not ok:
        return False
    chain: _Chain = upstream.get_app_data()
    chain.certificates[depth] = crypto.dump_certificate(crypto.FILETYPE_ASN1, certificate)
    if depth == 0:
        chain.objection = _objection(tuple(chain.certificates[d] for d in sorted(chain.certificates)))
    return chain.objection is None


@lru_cache(maxsize=1024)
def _objection(chain: tuple[bytes, ...]) -> str | None:
    return objection([x509.load_der_x509_certificate(der) for der in chain])


def _let_retry(server: connection.Server) -> None:
    asyncio.get_running_loop().call_later(RETRY_SECONDS, setattr, server, "error", None)


def _expect_name(upstream: SSL.Connection, name: str) -> None:
    """Verification is of the chain *and* of this name; no partial wildcards, no common name (RFC 9525)."""
    lib: Any = SSL._lib  # type: ignore[attr-defined]
    param = lib.SSL_get0_param(upstream._ssl)
    flags = lib.X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS | getattr(lib, "X509_CHECK_FLAG_NEVER_CHECK_SUBJECT", 0)
    lib.X509_VERIFY_PARAM_set_hostflags(param, flags)
    encoded = name.encode()
    SSL._openssl_assert(lib.X509_VERIFY_PARAM_set1_host(param, encoded, len(encoded)) == 1)


def _expect_address(upstream: SSL.Connection, address: IPAddress) -> None:
    lib: Any = SSL._lib  # type: ignore[attr-defined]
    param = lib.SSL_get0_param(upstream._ssl)
    packed = address.packed
    SSL._openssl_assert(lib.X509_VERIFY_PARAM_set1_ip(param, packed, len(packed)) == 1)
