"""Whether a certificate is a CA's that clients accept servers' certificates from."""

from datetime import datetime

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes
from cryptography.x509.oid import ExtendedKeyUsageOID

from sidecar.pki.extensions import extensions_of
from sidecar.pki.session_ca import CaError, utc

_RENEW = "mount a current CA, or run bootstrap --force"


def check_ca(certificate: x509.Certificate, name: str, now: datetime) -> None:
    """
    Check one certificate of a CA's chain by itself.

    Args:
        certificate: The issuing one, an intermediate or the root.
        name: What errors call it.
        now: Aware, UTC.

    Raises:
        CaError: It isn't valid now, isn't a CA's, may not sign certificates or servers', or is too weak.
    """
    begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if utc(now) >= end:
        raise CaError(f"{name} expired at {end:%Y-%m-%dT%H:%M:%SZ}; {_RENEW}")
    if utc(now) < begin:
        raise CaError(f"{name} is not valid before {begin:%Y-%m-%dT%H:%M:%SZ}; check this machine's clock, or {_RENEW}")
    try:
        extensions = extensions_of(certificate)
    except ValueError:
        raise CaError(f"{name} has extensions that can't be read; {_RENEW}") from None
    try:
        is_ca = extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        is_ca = False
    if not is_ca:
        raise CaError(
            f"{name} is not a CA's (basicConstraints lacks CA:TRUE); issue it as a CA, with isCA in cert-manager"
        )
    try:
        may_sign = extensions.get_extension_for_class(x509.KeyUsage).value.key_cert_sign
    except x509.ExtensionNotFound:
        may_sign = False  # the RFC asks CAs to have it, and strict clients refuse those that don't
    if not may_sign:
        raise CaError(
            f"{name} may not sign certificates (keyUsage lacks keyCertSign); issue it with 'cert sign' as usage"
        )
    try:
        purposes = set(extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)
    except x509.ExtensionNotFound:
        purposes = {ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE}
    if not purposes & {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE}:
        raise CaError(
            f"{name} may not sign for servers (extendedKeyUsage lacks serverAuth); issue it with 'server auth', "
            "or without extended usages"
        )
    _check_strength(certificate, name)


def _is_root(certificate: x509.Certificate, name: str) -> bool:
    try:
        return certificate.issuer == certificate.subject
    except (ValueError, KeyError, TypeError):  # read when asked for; the library knows not every kind of text
        raise CaError(f"{name} has a subject or an issuer that can't be read; issue it anew") from None


def _check_strength(certificate: x509.Certificate, name: str) -> None:
    key = public_key_of(certificate)
    if isinstance(key, rsa.RSAPublicKey) and key.key_size < 2048:
        raise CaError(f"{name} has an RSA key of {key.key_size} bits, which clients refuse; issue it with 2048 or more")
    if not _is_root(certificate, name):  # nobody verifies what a root has signed itself with
        try:
            digest = certificate.signature_hash_algorithm
        except UnsupportedAlgorithm:
            return
        if isinstance(digest, hashes.SHA1 | hashes.MD5):
            raise CaError(f"{name} is signed with {digest.name.upper()}, which clients refuse; issue it with SHA-256")


def public_key_of(certificate: x509.Certificate) -> PublicKeyTypes | None:
    """A certificate's key, where it is of a kind that the library knows."""
    try:
        return certificate.public_key()
    except (ValueError, UnsupportedAlgorithm):
        return None
