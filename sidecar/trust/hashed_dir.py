"""OpenSSL's hashed directory: what ``openssl rehash`` and ``update-ca-certificates`` leave, in regular files."""

import re
from collections import Counter
from collections.abc import Iterable
from typing import Final

from cryptography import x509
from OpenSSL import crypto

from sidecar.pki.pem import to_pem
from sidecar.trust.anchors import unique
from sidecar.trust.bundle import trust_bundle

SYSTEM_BUNDLE: Final = "ca-certificates.crt"
HASHED_NAME: Final = re.compile(r"[0-9a-f]{8}\.[0-9]+\Z")


def subject_hash(certificate: x509.Certificate) -> str:
    """The hash by which OpenSSL 1.0 and later look for an issuer: eight digits, of the subject's canonical form."""
    return f"{crypto.X509.from_cryptography(certificate).subject_name_hash():08x}"


def hashed_directory(certificates: Iterable[x509.Certificate]) -> dict[str, bytes]:
    """
    Make the directory that can be mounted over ``/etc/ssl/certs``, or named by ``SSL_CERT_DIR``.

    Returns:
        ``ca-certificates.crt`` with all of them; ``<hash>.0`` for each, and where subjects have the same hash,
        ``<hash>.1`` and so on in the order given: OpenSSL stops at the first number that is missing.
    """
    listed, seen = unique(certificates), Counter[str]()
    files = {SYSTEM_BUNDLE: trust_bundle(listed)}
    for certificate in listed:
        name = subject_hash(certificate)
        files[f"{name}.{seen[name]}"] = to_pem([certificate])
        seen[name] += 1
    return files
