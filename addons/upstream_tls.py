"""Server-side TLS: verify the upstream, always."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from cryptography import x509
from mitmproxy import connection, tls
from OpenSSL import SSL, crypto

from addons.dial import let_retry
from addons.guard import fails_closed
from addons.session_ca import CIPHERS
from sidecar.handshakes import diagnose_server
from sidecar.hosts import Authority, IPAddress, parse_host
from sidecar.ledger import Ledger
from sidecar.pki.strict import objection
from sidecar.problem import Failure
from sidecar.reasons import Reason


@fails_closed
class UpstreamTls:
    """
    Verifies who answers.

    Args:
        ledger: Is told of handshakes that fail.
        roots: Loads the trusted roots into a context.
    """

    name = "egress_upstream_tls"

    def __init__(self, ledger: Ledger, roots: Callable[[SSL.Context], None]) -> None:
        self.ledger = ledger
        self._context = SSL.Context(SSL.TLS_CLIENT_METHOD)
        self._context.set_min_proto_version(SSL.TLS1_2_VERSION)
        self._context.set_cipher_list(CIPHERS)
        self._context.set_verify(SSL.VERIFY_PEER, _verified)
        self._context.set_options(SSL.OP_NO_RENEGOTIATION)
        roots(self._context)

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
        let_retry(server)


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
