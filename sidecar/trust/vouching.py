"""Does a file vouch for what the sidecar serves? Asked of the certificates themselves, not of their names or places."""

import re
import warnings
from collections.abc import Iterable, Sequence

from cryptography import x509
from cryptography.utils import CryptographyDeprecationWarning

_BLOCK = re.compile(rb"-----BEGIN (?:TRUSTED )?CERTIFICATE-----.*?-----END (?:TRUSTED )?CERTIFICATE-----", re.DOTALL)


def certificates_of(content: bytes) -> tuple[x509.Certificate, ...]:
    """The certificates of a PEM file that can be read; what can't is passed over, as clients do."""
    found = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CryptographyDeprecationWarning)  # roots with the serial number 0
        for block in _BLOCK.findall(content):
            try:
                found.append(x509.load_pem_x509_certificate(block))
            except ValueError:
                continue
    return tuple(found)


def vouches(certificates: Iterable[x509.Certificate], chain: Sequence[x509.Certificate]) -> bool:
    """Whether one of *certificates* is in *chain*, above its leaf, or has issued a certificate of it."""
    above = chain[1:]
    return any(
        certificate in above or any(_issued(certificate, shown) for shown in chain) for certificate in certificates
    )


def _issued(issuer: x509.Certificate, certificate: x509.Certificate) -> bool:
    if issuer.subject != certificate.issuer:
        return False
    try:
        certificate.verify_directly_issued_by(issuer)
    except Exception:  # whatever is wrong with either, it doesn't vouch
        return False
    return True
