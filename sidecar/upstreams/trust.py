"""The files of one upstream as values: roots, client certificate, revocation lists."""

import re
from dataclasses import dataclass, field

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from sidecar.errors import SidecarError
from sidecar.pki.pem import certificates_in
from sidecar.policy.upstreams import Accept

type ClientKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey

_CRL = re.compile(rb"-----BEGIN X509 CRL-----.+?-----END X509 CRL-----", re.DOTALL)
_KEYS = (rsa.RSAPrivateKey, ec.EllipticCurvePrivateKey, ed25519.Ed25519PrivateKey, ed448.Ed448PrivateKey)


class UpstreamFileError(SidecarError):
    """A file that is for upstreams doesn't hold what it should. Never quotes it."""


@dataclass(frozen=True, slots=True)
class ClientIdentity:
    """Who we are to an upstream that asks: the certificate, then its issuers; and its key, which is never shown."""

    chain: tuple[x509.Certificate, ...]
    key: ClientKey = field(repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class Trust:
    """What holds for the upstreams of one entry; for all others, nothing of it."""

    roots: tuple[x509.Certificate, ...] = ()  # instead of the sidecar's, if there are any
    add_roots: tuple[x509.Certificate, ...] = ()  # besides
    client: ClientIdentity | None = None
    crls: tuple[x509.CertificateRevocationList, ...] = ()  # if there is one, each certificate needs one
    accept: frozenset[Accept] = frozenset()


def parse_roots(pem: bytes, name: str) -> tuple[x509.Certificate, ...]:
    """
    Read the roots in a file.

    Args:
        name: What errors call it, usually its path.

    Raises:
        PemError: It is empty, isn't PEM, or a certificate in it can't be read.
        UpstreamFileError: It holds a private key.
    """
    if b"PRIVATE KEY-----" in pem:
        raise UpstreamFileError(f"{name} holds a private key; write certificates alone to it, and renew that key")
    return certificates_in(pem, name)


def parse_client(certificate: bytes, key: bytes, *, certificate_name: str, key_name: str) -> ClientIdentity:
    """
    Read a client certificate with its chain, and its key: RSA, ECDSA or EdDSA in PEM, unencrypted.

    Raises:
        PemError: The certificate's file is empty, isn't PEM, or can't be read.
        UpstreamFileError: The key can't be read, or isn't the certificate's.
    """
    chain = certificates_in(certificate, certificate_name)
    # "from None" throughout: a library's error may quote what it read.
    try:
        parsed = load_pem_private_key(key, password=None)
    except TypeError:
        raise UpstreamFileError(
            f"{key_name} is encrypted; decrypt it with 'openssl pkey', and keep it in a Secret instead"
        ) from None
    except (ValueError, UnsupportedAlgorithm):
        raise UpstreamFileError(f"{key_name} holds no private key that can be read; write one in PEM") from None
    if not isinstance(parsed, _KEYS):
        raise UpstreamFileError(f"{key_name} is of a kind that TLS doesn't take; use ECDSA on P-256, or RSA")
    try:
        owned = chain[0].public_key() == parsed.public_key()
    except (ValueError, UnsupportedAlgorithm):
        owned = False
    if not owned:
        raise UpstreamFileError(
            f"{key_name} does not belong to the first certificate of {certificate_name} (public keys differ); "
            "mount the pair of one certificate, its chain behind it"
        )
    return ClientIdentity(chain, parsed)


def parse_crls(pem: bytes, name: str) -> tuple[x509.CertificateRevocationList, ...]:
    """
    Read every revocation list in a file. Whether they are of today is asked at each handshake, not here.

    Raises:
        UpstreamFileError: There is none, or one that can't be read.
    """
    found = _CRL.findall(pem)
    if not found:
        raise UpstreamFileError(
            f"{name} holds no revocation list; it must have an '-----BEGIN X509 CRL-----' block "
            "(from DER: openssl crl -inform DER)"
        )
    try:
        return tuple(x509.load_pem_x509_crl(block) for block in found)
    except (ValueError, UnsupportedAlgorithm):
        raise UpstreamFileError(f"{name} holds a revocation list that can't be read; copy it again, whole") from None
