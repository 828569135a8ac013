"""
The files in which distributions keep what they trust, as folders to be mounted.

All are regular files, though distributions link one to the other: a link may lead out of what is mounted. That is so
with a single file by ``subPath``, and with ``/etc/ssl/certs`` without ``/usr/share/ca-certificates``.
"""

import base64
import textwrap
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from sidecar.trust.anchors import Anchors
from sidecar.trust.hashed_dir import SYSTEM_BUNDLE, hashed_directory
from sidecar.trust.keystore import PASSWORD, jks


class Family(StrEnum):
    """Distributions that keep what they trust in the same places."""

    DEBIAN = "debian"  # and Ubuntu
    ALPINE = "alpine"  # and Wolfi
    RHEL = "rhel"  # and Fedora, CentOS, Amazon Linux
    DISTROLESS = "distroless"  # Google's images: no OpenSSL, so nothing is hashed


@dataclass(frozen=True, slots=True, kw_only=True)
class Stores:
    """What is trusted, in the forms that distributions have; each made once for all of them."""

    certificates: tuple[x509.Certificate, ...]
    hashed: Mapping[str, bytes]
    cacerts: bytes

    @property
    def bundle(self) -> bytes:
        return self.hashed[SYSTEM_BUNDLE]


def stores(anchors: Anchors, password: str | None = PASSWORD) -> Stores:
    """Make them; *password* is that of Java's ``cacerts``."""
    everybody = anchors.all
    return Stores(certificates=everybody, hashed=hashed_directory(everybody), cacerts=jks(everybody, password))


def layout(family: Family, stores: Stores) -> dict[str, bytes]:
    """Make one family's files: their paths in an image, without the first slash, to their contents."""
    return _LAYOUTS[family](stores)


def _debian(stores: Stores) -> dict[str, bytes]:
    return {**_below("etc/ssl/certs", stores.hashed), "etc/ssl/certs/java/cacerts": stores.cacerts}


def _alpine(stores: Stores) -> dict[str, bytes]:
    return {**_debian(stores), "etc/ssl/cert.pem": stores.bundle}  # LibreSSL's and Python's default there


def _rhel(stores: Stores) -> dict[str, bytes]:
    extracted, trusted = "etc/pki/ca-trust/extracted", _trusted_bundle(stores.certificates)
    return {
        "etc/pki/tls/certs/ca-bundle.crt": stores.bundle,
        "etc/pki/tls/certs/ca-bundle.trust.crt": trusted,
        "etc/pki/tls/cert.pem": stores.bundle,
        "etc/pki/java/cacerts": stores.cacerts,
        f"{extracted}/pem/tls-ca-bundle.pem": stores.bundle,
        **_below(f"{extracted}/pem/directory-hash", stores.hashed),
        f"{extracted}/openssl/ca-bundle.trust.crt": trusted,
        f"{extracted}/java/cacerts": stores.cacerts,
    }


def _distroless(stores: Stores) -> dict[str, bytes]:
    return {f"etc/ssl/certs/{SYSTEM_BUNDLE}": stores.bundle, "etc/ssl/certs/java/cacerts": stores.cacerts}


_LAYOUTS: Final[Mapping[Family, Callable[[Stores], dict[str, bytes]]]] = {
    Family.DEBIAN: _debian,
    Family.ALPINE: _alpine,
    Family.RHEL: _rhel,
    Family.DISTROLESS: _distroless,
}


def _below(folder: str, files: Mapping[str, bytes]) -> dict[str, bytes]:
    return {f"{folder}/{name}": content for name, content in files.items()}


# OpenSSL's X509_CERT_AUX: SEQUENCE { SEQUENCE OF OBJECT IDENTIFIER serverAuth }. RHEL marks so who is trusted for TLS.
_FOR_SERVERS: Final = bytes.fromhex("300c300a06082b06010505070301")


def _trusted_bundle(certificates: tuple[x509.Certificate, ...]) -> bytes:
    """OpenSSL's ``TRUSTED CERTIFICATE`` blocks: each certificate, and that it may vouch for servers."""
    return b"".join(_trusted(certificate) for certificate in certificates)


def _trusted(certificate: x509.Certificate) -> bytes:
    text = base64.b64encode(certificate.public_bytes(Encoding.DER) + _FOR_SERVERS).decode()
    lines = "\n".join(textwrap.wrap(text, 64))
    return f"-----BEGIN TRUSTED CERTIFICATE-----\n{lines}\n-----END TRUSTED CERTIFICATE-----\n".encode()
