"""A handshake with an upstream: OpenSSL verifies chain, name, validity and revocation; then come our own objections."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from cryptography import x509
from OpenSSL import SSL, crypto

from sidecar.hosts import Host, IPAddress
from sidecar.pki.staple import Staple, judge_staple, wants_staple
from sidecar.pki.strict import Objection, objections
from sidecar.policy.upstreams import Accept
from sidecar.tls_profile import client_context
from sidecar.upstreams.sessions import MAX_SECONDS, Kept
from sidecar.upstreams.trust import Trust, UpstreamFileError

# TLS 1.2's suites beyond the profile, by what accepts them.
_CBC = ("AES128-SHA256", "AES256-SHA384", "AES128-SHA", "AES256-SHA")
_STATIC_RSA = ("AES128-GCM-SHA256", "AES256-GCM-SHA384")
_STATIC_RSA_CBC = ("AES128-SHA256", "AES256-SHA256", "AES128-SHA", "AES256-SHA")

_FATAL = 2  # RFC 8446, section 6
# Alerts that speak of the certificate that they answer, by RFC 8446's numbers.
_OF_OUR_CERTIFICATE = {
    42: "bad certificate",
    43: "unsupported certificate",
    44: "certificate revoked",
    45: "certificate expired",
    46: "certificate unknown",
    48: "unknown ca",
    49: "access denied",
    116: "certificate required",
}

# X509_V_ERR_… of OpenSSL's x509_vfy.h: there is no revocation list of the issuer, or none that can be relied on.
_NO_GOOD_LIST = frozenset({3, 5, 8, 11, 12, 15, 16, 33, 35, 36, 44, 54})


@dataclass(slots=True)
class Handshake:
    """What becomes of one handshake; the connection's app data."""

    accept: frozenset[Accept]
    refused: Callable[
        [str], None
    ]  # told OpenSSL's words for an alert about our certificate that comes when all is done
    resumes: bool = True  # what was verified holds for a while: no revocation list is asked
    until: float = 0.0  # ``time.time()``; to when the session that is resumed may be
    ended: bool = False  # by an alert, once it was done
    certificates: dict[int, x509.Certificate] = field(default_factory=dict)  # verified by OpenSSL, by depth
    verified: float = 0.0  # ``time.time()``
    objection: Objection | None = None

    @property
    def chain(self) -> tuple[x509.Certificate, ...]:
        """The leaf first."""
        return tuple(self.certificates[depth] for depth in sorted(self.certificates))

    def object_to(self, found: Sequence[Objection]) -> bool:
        """Keep the first objection that isn't accepted; whether there is one."""
        self.objection = next((one for one in found if one.accept is None or one.accept not in self.accept), None)
        return self.objection is not None


def make_context(trust: Trust, load_roots: Callable[[SSL.Context], None]) -> SSL.Context:
    """
    The context for all upstreams of one entry, or for those of none.

    Args:
        load_roots: Loads the sidecar's own roots, where the entry doesn't replace them.

    Raises:
        UpstreamFileError: OpenSSL takes one of the files not.
    """
    context = client_context(_more_ciphers(trust.accept))
    context.set_verify(SSL.VERIFY_PEER, _verified)
    context.set_ocsp_client_callback(_stapled)
    context.set_app_data((trust.accept, not trust.crls))
    if not trust.roots:
        load_roots(context)
    store = context.get_cert_store()
    assert store is not None
    try:
        for root in (*trust.roots, *trust.add_roots):
            store.add_cert(crypto.X509.from_cryptography(root))
        for crl in trust.crls:
            store.add_crl(crl)
        if trust.crls:
            store.set_flags(crypto.X509StoreFlags.CRL_CHECK | crypto.X509StoreFlags.CRL_CHECK_ALL)
        if trust.client is not None:
            first, *issuers = trust.client.chain
            context.use_certificate(first)
            context.use_privatekey(trust.client.key)
            for issuer in issuers:
                context.add_extra_chain_cert(issuer)
    except (SSL.Error, crypto.Error) as e:
        why = e.args[0][-1][2] if e.args and e.args[0] else "no reason given"
        raise UpstreamFileError(f"OpenSSL refuses a certificate or a list: {why}; renew it") from None
    return context


def connection_to(
    host: Host,
    context: SSL.Context,
    alpn: Sequence[bytes],
    refused: Callable[[str], None],
    resumed: Kept | None = None,
) -> SSL.Connection:
    """
    A connection whose handshake succeeds only with *host*; to be driven by whoever owns the socket.

    Args:
        refused: Told of an alert about our certificate that comes after the handshake, as under TLS 1.3 it does; from
            `listen_for_alerts` on.
        resumed: A session of the same host and context. Without it, or if the upstream has forgotten it, the chain is
            verified.
    """
    upstream = SSL.Connection(context)
    accept, resumes = context.get_app_data()
    upstream.set_app_data(Handshake(accept, refused, resumes, resumed.until if resumed is not None else 0.0))
    if resumed is not None:
        upstream.set_session(resumed.session)
    if host.address is not None:
        _expect_address(upstream, host.address)  # and no SNI: an address is no server name (RFC 6066, section 3)
    else:
        upstream.set_tlsext_host_name(host.name.encode())
        _expect_name(upstream, host.name)
    upstream.request_ocsp()
    upstream.set_alpn_protos(list(alpn))
    upstream.set_connect_state()
    return upstream


def objection_of(upstream: SSL.Connection) -> Objection | None:
    """What we have objected to; None where it was OpenSSL, or the other side."""
    handshake: Handshake = upstream.get_app_data()
    return handshake.objection


def listen_for_alerts(upstream: SSL.Connection) -> None:
    """The handshake is done. Not before: OpenSSL would tell of each of its thirty steps."""
    lib, _ = _library()
    lib.SSL_set_info_callback(upstream._ssl, _TOLD)


def refused_by(upstream: SSL.Connection, refused: Callable[[str], None]) -> None:
    """From now on *refused* is told of alerts about our certificate: the connection serves another client."""
    handshake: Handshake = upstream.get_app_data()
    handshake.refused = refused


def is_resumed(upstream: SSL.Connection) -> bool:
    """Whether what an earlier handshake has verified was taken over."""
    lib, _ = _library()
    return bool(lib.SSL_session_reused(upstream._ssl))


def session_of(upstream: SSL.Connection) -> Kept | None:
    """The session to resume, of a connection on which nothing is read or written any more; None if it mustn't be."""
    handshake: Handshake = upstream.get_app_data()
    if not handshake.resumes or handshake.ended:
        return None
    if is_resumed(upstream):
        until = handshake.until
    elif not handshake.certificates or wants_staple(handshake.chain[0]):
        return None
    else:
        ends = min(certificate.not_valid_after_utc for certificate in handshake.chain)
        until = min(handshake.verified + MAX_SECONDS, ends.timestamp())
    # OpenSSL takes a session for a broken one where the connection is let go without a close_notify.
    upstream.set_shutdown(SSL.SENT_SHUTDOWN | SSL.RECEIVED_SHUTDOWN)
    session = upstream.get_session()
    return Kept(session, until) if session is not None else None


def ended_by_alert(upstream: SSL.Connection) -> bool:
    """Whether a fatal alert came after the handshake: OpenSSL then says "shut down", as after a close_notify."""
    handshake: Handshake = upstream.get_app_data()
    return handshake.ended


def _more_ciphers(accept: frozenset[Accept]) -> tuple[str, ...]:
    found: tuple[str, ...] = ()
    if Accept.CBC in accept:
        found += tuple(f"ECDHE-{key}-{suite}" for suite in _CBC for key in ("ECDSA", "RSA"))
    if Accept.STATIC_RSA in accept:
        found += _STATIC_RSA
    if accept >= {Accept.STATIC_RSA, Accept.CBC}:
        found += _STATIC_RSA_CBC
    return found


def _verified(upstream: SSL.Connection, certificate: crypto.X509, error: int, depth: int, ok: int) -> bool:
    """OpenSSL's verdict on one certificate, from the root down; at the leaf, ours on the whole chain."""
    handshake: Handshake = upstream.get_app_data()
    try:
        parsed = parsed_certificate(certificate)
        if not ok and error in _NO_GOOD_LIST:
            handshake.objection = Objection(f"{_words_of(error)}, issuer {parsed.issuer.rfc4514_string()!r}")
    except (ValueError, KeyError, TypeError) as e:  # names are read when they are asked for
        handshake.objection = Objection(f"certificate {depth + 1} of the chain can't be parsed: {e}")
        return False
    if not ok:
        return False
    handshake.certificates[depth] = parsed
    if depth > 0:
        return True
    handshake.verified = time.time()
    return not handshake.object_to(_objections(handshake.chain))


def parsed_certificate(certificate: crypto.X509) -> x509.Certificate:
    """
    As ``certificate.to_cryptography()``; the same object for the same bytes: issuers come again and again.

    Raises:
        ValueError: It can't be parsed.
    """
    return _of_der(crypto.dump_certificate(crypto.FILETYPE_ASN1, certificate))


@lru_cache(maxsize=1024)
def _of_der(der: bytes) -> x509.Certificate:
    return x509.load_der_x509_certificate(der)


@lru_cache(maxsize=1024)
def _objections(chain: tuple[x509.Certificate, ...]) -> tuple[Objection, ...]:
    return tuple(objections(chain))


def _stapled(upstream: SSL.Connection, response: bytes, _: object) -> bool:
    """Asked once the chain is verified, whether a response came or not."""
    handshake: Handshake = upstream.get_app_data()
    if is_resumed(upstream):
        return True  # no certificate is shown then; one that must be stapled has no session that is kept
    leaf, issuer = (*handshake.chain, *handshake.chain[-1:])[:2]  # a root that is its own server's
    if not response and not wants_staple(leaf):
        return True
    verdict, why = judge_staple(response, leaf, issuer, datetime.now(UTC))
    match verdict:
        case Staple.REVOKED:
            return not handshake.object_to([Objection(f"the stapled OCSP response: {why}")])
        case Staple.NOTHING if wants_staple(leaf):
            words = f"the certificate asks for a stapled OCSP response (must-staple): {why}"
            return not handshake.object_to([Objection(words, Accept.MISSING_STAPLE)])
    return True


def _told(upstream: SSL.Connection, where: int, value: int) -> None:
    if where == SSL.SSL_CB_READ_ALERT and value >> 8 == _FATAL:
        handshake: Handshake = upstream.get_app_data()
        handshake.ended = True
        if alert := _OF_OUR_CERTIFICATE.get(value & 0xFF):
            handshake.refused(f"tlsv13 alert {alert}")


def _words_of(error: int) -> str:
    lib, ffi = _library()
    return str(ffi.string(lib.X509_verify_cert_error_string(error)).decode())


def _expect_name(upstream: SSL.Connection, name: str) -> None:
    """Verification is of the chain *and* of this name; no partial wildcards, no common name (RFC 9525)."""
    lib, _ = _library()
    param = lib.SSL_get0_param(upstream._ssl)
    flags = lib.X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS | getattr(lib, "X509_CHECK_FLAG_NEVER_CHECK_SUBJECT", 0)
    lib.X509_VERIFY_PARAM_set_hostflags(param, flags)
    encoded = name.encode()
    SSL._openssl_assert(lib.X509_VERIFY_PARAM_set1_host(param, encoded, len(encoded)) == 1)


def _expect_address(upstream: SSL.Connection, address: IPAddress) -> None:
    lib, _ = _library()
    param = lib.SSL_get0_param(upstream._ssl)
    packed = address.packed
    SSL._openssl_assert(lib.X509_VERIFY_PARAM_set1_ip(param, packed, len(packed)) == 1)


def _library() -> tuple[Any, Any]:
    """What pyOpenSSL itself stands on: it has no functions for the expected name."""
    return SSL._lib, SSL._ffi  # type: ignore[attr-defined]


def _info(ssl: Any, where: int, value: int) -> None:
    if (upstream := SSL.Connection._reverse_mapping.get(ssl)) is not None:
        _told(upstream, where, value)


_TOLD = _library()[1].callback("void (*)(const SSL *, int, int)", _info)  # OpenSSL holds no reference to it
