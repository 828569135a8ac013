"""Certificates to and from PEM (RFC 7468)."""

import warnings
from collections.abc import Iterable

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.utils import CryptographyDeprecationWarning

from sidecar.errors import SidecarError


class PemError(SidecarError):
    """The text holds no certificates, or broken ones."""


def certificates_in(pem: bytes, name: str) -> tuple[x509.Certificate, ...]:
    """
    Read every certificate in a text, in order; other blocks and comments are passed over.

    Args:
        pem: The content of a file.
        name: What errors call it, usually its path.

    Returns:
        At least one certificate.

    Raises:
        PemError: The text is empty, isn't PEM, or a certificate in it can't be read.
    """
    if not pem.strip():
        raise PemError(f"{name} is empty; write a certificate in PEM to it")
    if b"-----BEGIN CERTIFICATE-----" not in pem:
        raise PemError(
            f"{name} holds no certificate; it must have a '-----BEGIN CERTIFICATE-----' block (PEM, not DER)"
        )
    try:
        with warnings.catch_warnings():
            # Some long-lived public roots have the serial number 0, which RFC 5280 forbids and every client accepts.
            warnings.simplefilter("ignore", CryptographyDeprecationWarning)
            return tuple(x509.load_pem_x509_certificates(pem))
    except (ValueError, x509.InvalidVersion):
        raise PemError(f"{name} holds a certificate that can't be read; copy the file again, whole") from None


def to_pem(certificates: Iterable[x509.Certificate]) -> bytes:
    """Write certificates one after the other, in the order given."""
    return b"".join(certificate.public_bytes(Encoding.PEM) for certificate in certificates)
