"""The public roots: Mozilla's, as certifi ships them."""

from functools import cache

import certifi
from cryptography import x509

from sidecar.pki.pem import certificates_in


@cache
def public_roots() -> tuple[x509.Certificate, ...]:
    """All of them, in certifi's order; read and parsed once per process."""
    return certificates_in(certifi.contents().encode(), "certifi's roots")
