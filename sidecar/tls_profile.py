"""
Mozilla's "intermediate" TLS profile, version 5.7 (https://ssl-config.mozilla.org/guidelines/5.7.json), without DHE.

DHE is in it for clients that are older than the oldest it names; all of those have ECDHE.
"""

from collections.abc import Sequence
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from OpenSSL import SSL, crypto

# TLS 1.2: forward secrecy and AEAD only. The suites of TLS 1.3 are OpenSSL's defaults, the same three as the profile's.
CIPHERS = tuple(
    f"ECDHE-{key}-{suite}"
    for suite in ("AES128-GCM-SHA256", "AES256-GCM-SHA384", "CHACHA20-POLY1305")
    for key in ("ECDSA", "RSA")
)
GROUPS = ("X25519", "P-256", "P-384")


def server_context() -> SSL.Context:
    """
    A server's context with the profile, without a certificate.

    The client's order of suites counts, as the profile says: it knows whether it has AES in hardware.
    """
    context = _context(SSL.TLS_SERVER_METHOD, CIPHERS)
    lib: Any = SSL._lib  # type: ignore[attr-defined]  # pyOpenSSL has no function for groups
    SSL._openssl_assert(lib.SSL_CTX_set1_curves_list(context._context, ":".join(GROUPS).encode()) == 1)
    return context


def client_context(more_ciphers: tuple[str, ...] = ()) -> SSL.Context:
    """A client's: the profile's versions and suites, and OpenSSL's groups, which have a post-quantum one."""
    return _context(SSL.TLS_CLIENT_METHOD, (*CIPHERS, *more_ciphers))


class Fixed:
    """
    What all leaves of a CA are shown with, as OpenSSL has it: pyOpenSSL makes it anew for each context.

    Args:
        key: The leaves'.
        chain: What is sent behind a leaf.
    """

    def __init__(self, key: ec.EllipticCurvePrivateKey, chain: Sequence[x509.Certificate]) -> None:
        self._key = crypto.PKey.from_cryptography_key(key)
        self._chain = [crypto.X509.from_cryptography(certificate) for certificate in chain]

    def show(self, context: SSL.Context, leaf: x509.Certificate) -> None:
        """Have *context* answer with *leaf*."""
        lib: Any = SSL._lib  # type: ignore[attr-defined]
        context.use_certificate(leaf)
        SSL._openssl_assert(lib.SSL_CTX_use_PrivateKey(context._context, self._key._pkey) == 1)
        for certificate in self._chain:
            copy = lib.X509_dup(certificate._x509)  # the context frees it
            SSL._openssl_assert(lib.SSL_CTX_add_extra_chain_cert(context._context, copy) == 1)


def _context(method: int, ciphers: tuple[str, ...]) -> SSL.Context:
    context = SSL.Context(method)
    context.set_min_proto_version(SSL.TLS1_2_VERSION)
    context.set_cipher_list(":".join(ciphers).encode())
    context.set_options(SSL.OP_NO_RENEGOTIATION)
    context.set_mode(SSL.MODE_RELEASE_BUFFERS)  # a connection that is idle holds none: 34 kB less
    return context
