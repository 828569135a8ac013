"""Whom a workload is told to trust; and the certificates of a file that somebody else has written."""

import re
import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Final

from cryptography import x509
from cryptography.hazmat import asn1
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.utils import CryptographyDeprecationWarning
from OpenSSL import crypto

from sidecar.trust.errors import TrustError


@dataclass(frozen=True, slots=True, kw_only=True)
class Anchors:
    """
    The certificates that end a chain for the workload.

    Attributes:
        session: The session CA's root; while the CA is exchanged for one with another root, both.
        public: Everybody else's; empty where the workload is to trust the session CA alone.
    """

    session: tuple[x509.Certificate, ...]
    public: tuple[x509.Certificate, ...] = ()

    @property
    def all(self) -> tuple[x509.Certificate, ...]:
        """The public ones, then the session's, each once."""
        return unique((*self.public, *self.session))


def unique(certificates: Iterable[x509.Certificate]) -> tuple[x509.Certificate, ...]:
    """Each once, by its DER, where it stands first."""
    return tuple({certificate.public_bytes(Encoding.DER): certificate for certificate in certificates}.values())


def in_force(
    certificates: Iterable[x509.Certificate], now: datetime
) -> tuple[tuple[x509.Certificate, ...], tuple[x509.Certificate, ...]]:
    """
    Part the certificates that haven't expired from those that have.

    A root that has expired is of no use to clients that look at its date, and Java, which doesn't, would go on trusting
    it. Older TLS libraries even stop at it where another path leads to a good one.
    """
    listed = tuple(certificates)
    expired = tuple(one for one in listed if one.not_valid_after_utc < now)
    return tuple(one for one in listed if one not in expired), expired


_BOUNDARY: Final = re.compile(rb"-----(BEGIN|END)\b(?: ([^-\r\n]*)-----)?")
_BINARY: Final = re.compile(rb"[\x00-\x08\x0e-\x1f\x7f]")
_LABEL: Final = b"CERTIFICATE"
_ADVICE: Final[Mapping[bytes, str]] = {
    b"TRUSTED CERTIFICATE": "write it plainly: openssl x509 -in FILE",
    b"X509 CERTIFICATE": "write CERTIFICATE instead of X509 CERTIFICATE",
    b"PKCS7": "take the certificates out of it: openssl pkcs7 -print_certs -in FILE",
    b"CMS": "take the certificates out of it: openssl cms -verify -noverify -certsout NEW -in FILE",
    b"X509 CRL": "a revocation list isn't somebody to trust: take it out",
    b"CERTIFICATE REQUEST": "a request isn't a certificate yet: take it out",
}


def certificates_only(pem: bytes, name: str) -> tuple[x509.Certificate, ...]:
    """
    Read a bundle that must hold certificates and nothing else: text between them is a comment, and goes no further.

    Args:
        pem: The content of a file.
        name: What errors call it, usually its path.

    Returns:
        At least one certificate, in the file's order. OpenSSL can read each, and so can whoever looks at its subject.

    Raises:
        TrustError: There is none; there is another block, a private key above all; a block has no end; a certificate
            can't be read; or there are bytes that are no text.
    """
    if found := _BINARY.search(pem):
        raise TrustError(
            f"{name} isn't text (byte {found.start()}); give certificates in PEM: openssl x509 -inform DER -in FILE"
        )
    read = [_read(block, name, number) for number, block in enumerate(_blocks(pem, name), 1)]
    if not read:
        raise TrustError(f"{name} holds no certificate; give a file with '-----BEGIN CERTIFICATE-----' blocks")
    return tuple(read)


def _blocks(pem: bytes, name: str) -> Iterator[bytes]:
    begin: int | None = None
    for found in _BOUNDARY.finditer(pem):
        word, label = found.groups()
        line = pem.count(b"\n", 0, found.start()) + 1
        if label != _LABEL:
            raise TrustError(f"{name}:{line}: {_refusal(label)}")
        if (word == b"BEGIN") != (begin is None):
            raise TrustError(f"{name}:{line}: a certificate is cut off or begins twice; copy the file again, whole")
        if begin is None:
            begin = found.start()
        else:
            yield pem[begin : found.end()]
            begin = None
    if begin is not None:
        raise TrustError(f"{name}: its last certificate has no end; copy the file again, whole")


def _refusal(label: bytes | None) -> str:
    if label is None:
        return "a line begins a block without saying of what; copy the file again, whole"
    if b"PRIVATE KEY" in label:
        return "holds a private key, and the workload reads this; take it out, and replace it if anybody has seen it"
    text = label.decode("ascii", "backslashreplace")[:64]
    return f"holds {text!r}, not only certificates; {_ADVICE.get(label, 'take it out')}"


def _read(block: bytes, name: str, number: int) -> x509.Certificate:
    try:
        with warnings.catch_warnings():
            # Some long-lived public roots have the serial number 0, which RFC 5280 forbids and every client accepts.
            warnings.simplefilter("ignore", CryptographyDeprecationWarning)
            certificate = x509.load_pem_x509_certificate(block)
            # Both libraries parse lazily: what others ask for is asked for here.
            certificate.subject.rfc4514_string()
            _ = certificate.not_valid_before_utc, certificate.not_valid_after_utc
            _ = certificate.extensions, certificate.public_key()
            crypto.X509.from_cryptography(certificate).get_pubkey()
            _check_algorithm(certificate)
    except Exception:  # ValueError, InvalidVersion, KeyError for a subject of an unknown type, crypto.Error, …
        raise TrustError(f"{name}: its certificate {number} can't be read; copy the file again, whole") from None
    return certificate


@asn1.sequence
class _Tbs:
    version: Annotated[int | None, asn1.Explicit(0)]
    serial: asn1.TLV
    algorithm: asn1.TLV
    issuer: asn1.TLV
    validity: asn1.TLV
    subject: asn1.TLV
    key: asn1.TLV
    issuer_id: Annotated[asn1.BitString | None, asn1.Implicit(1)]
    subject_id: Annotated[asn1.BitString | None, asn1.Implicit(2)]
    extensions: Annotated[list[asn1.TLV] | None, asn1.Explicit(3)]


@asn1.sequence
class _Certificate:
    tbs: _Tbs
    algorithm: asn1.TLV
    signature: asn1.BitString


def _check_algorithm(certificate: x509.Certificate) -> None:
    """RFC 5280, section 4.1.1.2. Others read on; Java gives up the whole keystore that holds such a certificate."""
    whole = asn1.decode_der(_Certificate, certificate.public_bytes(Encoding.DER))
    if bytes(whole.algorithm.data) != bytes(whole.tbs.algorithm.data):
        raise ValueError("signature algorithm mismatch")
