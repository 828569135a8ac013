"""A certificate's extensions, also where a strict parser refuses one that clients read."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated

from cryptography import x509
from cryptography.hazmat import asn1
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtensionOID

# Stands for the '*' of a name constraint, which the library refuses to read: no more a part of any host's name.
STAR = "%"
_DNS_NAME = b"\x82"  # the tag of a GeneralName that is one


@asn1.sequence
@dataclass
class _Extension:
    oid: x509.ObjectIdentifier
    critical: Annotated[bool, asn1.Default(False)]
    value: bytes


@asn1.sequence
@dataclass
class _Body:
    """RFC 5280, section 4.1: TBSCertificate, without the unique identifiers that nobody uses."""

    version: Annotated[int, asn1.Explicit(0)]
    serial: int
    signature: asn1.TLV
    issuer: asn1.TLV
    validity: asn1.TLV
    subject: asn1.TLV
    key: asn1.TLV
    extensions: Annotated[list[_Extension], asn1.Explicit(3)]


@asn1.sequence
@dataclass
class _Subtree:
    base: asn1.TLV  # a GeneralName; RFC 5280 leaves out minimum and maximum


@asn1.sequence
@dataclass
class _Constraints:
    permitted: Annotated[list[_Subtree] | None, asn1.Implicit(0)]
    excluded: Annotated[list[_Subtree] | None, asn1.Implicit(1)]


@lru_cache(maxsize=64)
def extensions_of(certificate: x509.Certificate) -> x509.Extensions:
    """
    Read a certificate's extensions.

    A name constraint with a ``*`` in it, which RFC 5280, section 4.2.1.10, doesn't know, is read as one with `STAR`.
    Clients compare it as it is written: it fits no host's name.

    Raises:
        ValueError: An extension can't be read, for another reason, or is there twice.
    """
    try:
        return certificate.extensions
    except (x509.DuplicateExtension, x509.UnsupportedGeneralNameType) as e:
        raise ValueError(str(e)) from e
    except ValueError:
        readable = _without_stars(certificate)
        if readable is None:
            raise
        return readable.extensions


def _without_stars(certificate: x509.Certificate) -> x509.Certificate | None:
    """A copy to read, not to verify: of the same length, so that nothing else in it moves."""
    body = asn1.decode_der(_Body, certificate.tbs_certificate_bytes)
    written = next((each.value for each in body.extensions if each.oid == ExtensionOID.NAME_CONSTRAINTS), b"")
    readable = written
    if written:
        constraints = asn1.decode_der(_Constraints, written)
        for subtree in (*(constraints.permitted or ()), *(constraints.excluded or ())):
            domain = bytes(subtree.base.data)
            if subtree.base.tag_bytes == _DNS_NAME and b"*" in domain:
                # With what stands before it, since a length may be a star, too.
                head = _DNS_NAME + bytes((len(domain),))
                readable = readable.replace(head + domain, head + domain.replace(b"*", STAR.encode()))
    if readable == written:
        return None
    return x509.load_der_x509_certificate(certificate.public_bytes(Encoding.DER).replace(written, readable))
