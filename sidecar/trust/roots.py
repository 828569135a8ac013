"""The public roots: Mozilla's, as certifi ships them; and where systems keep theirs."""

from functools import cache
from typing import Final

import certifi
from cryptography import x509

from sidecar.pki.pem import certificates_in

# As Go's crypto/x509 looks for them, in this order. No variable is asked: it may name a bundle of ours.
SYSTEM_BUNDLES: Final = (
    "/etc/ssl/certs/ca-certificates.crt",  # Debian, Alpine, Arch, Gentoo
    "/etc/pki/tls/certs/ca-bundle.crt",  # Fedora, RHEL 6
    "/etc/ssl/ca-bundle.pem",  # SUSE
    "/etc/pki/tls/cacert.pem",  # OpenELEC
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",  # RHEL 7 and later
    "/etc/ssl/cert.pem",  # Alpine, BSD
)


@cache
def public_roots() -> tuple[x509.Certificate, ...]:
    """All of Mozilla's, in certifi's order; read and parsed once per process."""
    return certificates_in(certifi.contents().encode(), "certifi's roots")
