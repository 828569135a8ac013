"""
Java's trust stores, as bytes: PKCS#12 (RFC 7292) and JKS.

They hold certificates, so the password keeps no secret: it makes Java notice a damaged file, and some programs insist
on one. The same certificates and password make the same bytes, for which the salt of PKCS#12's checksum is a hash of
the content rather than random: salt protects a password from being guessed, and this one is public.
"""

import hashlib
import hmac
import re
import unicodedata
from collections.abc import Iterable
from typing import Annotated, Final

from cryptography import x509
from cryptography.hazmat import asn1
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption
from cryptography.hazmat.primitives.serialization.pkcs12 import PKCS12Certificate, serialize_java_truststore
from cryptography.x509.oid import NameOID

from sidecar.trust.anchors import unique
from sidecar.trust.errors import TrustError

PASSWORD: Final = "changeit"  # noqa: S105 - what Java expects unless told otherwise


def checked_password(password: str) -> str:
    """
    Raises:
        TrustError: ``keytool`` or a command line couldn't take it.
    """
    if not re.fullmatch(r"[!-~]{6,128}", password) or re.search("""["'\\\\]""", password):
        raise TrustError(
            "the keystore's password must be 6 to 128 characters of ASCII without spaces, quotes and backslashes; "
            f"leave it out for {PASSWORD!r}, or ask for none"
        )
    return password


def aliases(certificates: Iterable[x509.Certificate]) -> list[tuple[str, x509.Certificate]]:
    """
    A readable name for each certificate, and no name twice: Java would drop all but one of them.

    In lower case, since ``keytool`` asks for nothing else.
    """
    named: dict[str, x509.Certificate] = {}
    for certificate in unique(certificates):
        fingerprint = certificate.fingerprint(hashes.SHA256()).hex()
        short = f"{_label(certificate)}-{fingerprint[:8]}"
        named[f"{short}{fingerprint[8:]}" if short in named else short] = certificate
    return list(named.items())


def pkcs12(certificates: Iterable[x509.Certificate], password: str | None = PASSWORD) -> bytes:
    """
    Make ``truststore.p12``. Its certificates aren't encrypted, so it also opens where no password is given.

    Args:
        certificates: At least one.
        password: For the checksum; without one there is none, and any password opens it.
    """
    named = [PKCS12Certificate(certificate, alias.encode()) for alias, certificate in aliases(certificates)]
    made = asn1.decode_der(_Pfx, serialize_java_truststore(named, NoEncryption()))
    content = made.auth_safe
    return asn1.encode_der(
        _Pfx(version=3, auth_safe=content, mac_data=None if password is None else _mac(content.content, password))
    )


def jks(certificates: Iterable[x509.Certificate], password: str | None = PASSWORD) -> bytes:
    """
    Make ``truststore.jks``: Java's own format, for programs that ask for ``JKS`` by name.

    Args:
        certificates: At least one.
        password: For the checksum; without one it is the empty password's, and no password opens it.

    The format is that of OpenJDK's ``sun.security.provider.JavaKeyStore``, version 2; an entry's date is the
    certificate's own.
    """
    entries = aliases(certificates)
    body = b"\xfe\xed\xfe\xed" + _number(2, 4) + _number(len(entries), 4)
    for alias, certificate in entries:
        encoded = certificate.public_bytes(Encoding.DER)
        since = round(certificate.not_valid_before_utc.timestamp() * 1000)
        body += _number(2, 4) + _text(alias) + since.to_bytes(8, "big", signed=True)
        body += _text("X.509") + _number(len(encoded), 4) + encoded
    secret = (password or "").encode("utf-16-be") + b"Mighty Aphrodite"
    return body + hashlib.sha1(secret + body, usedforsecurity=False).digest()


@asn1.sequence
class _Content:
    content_type: x509.ObjectIdentifier
    content: Annotated[bytes, asn1.Explicit(0)]


@asn1.sequence
class _Algorithm:
    algorithm: x509.ObjectIdentifier
    parameters: asn1.Null


@asn1.sequence
class _Digest:
    algorithm: _Algorithm
    digest: bytes


@asn1.sequence
class _Mac:
    mac: _Digest
    salt: bytes
    iterations: int


@asn1.sequence
class _Pfx:
    version: int
    auth_safe: _Content
    mac_data: _Mac | None


_SHA256: Final = x509.ObjectIdentifier("2.16.840.1.101.3.4.2.1")
_BLOCK: Final = 64  # of SHA-256, bytes
_ROUNDS: Final = 2048  # as cryptography and OpenSSL have them
_MAC_KEY: Final = 3  # RFC 7292, appendix B.3


def _mac(content: bytes, password: str) -> _Mac:
    salt = hashlib.sha256(content).digest()[:8]
    key = _derived(password.encode("utf-16-be") + b"\0\0", salt)
    digest = hmac.digest(key, content, "sha256")
    algorithm = _Algorithm(algorithm=_SHA256, parameters=asn1.Null())
    return _Mac(mac=_Digest(algorithm=algorithm, digest=digest), salt=salt, iterations=_ROUNDS)


def _derived(password: bytes, salt: bytes) -> bytes:
    """RFC 7292, appendix B.2, for a key as long as the hash: its first round is all there is."""
    key = bytes([_MAC_KEY]) * _BLOCK + _filled(salt) + _filled(password)
    for _ in range(_ROUNDS):
        key = hashlib.sha256(key).digest()
    return key


def _filled(text: bytes) -> bytes:
    """*text*, again and again, to whole blocks."""
    length = -(-len(text) // _BLOCK) * _BLOCK
    return (text * length)[:length]


def _label(certificate: x509.Certificate) -> str:
    for kind in (NameOID.COMMON_NAME, NameOID.ORGANIZATIONAL_UNIT_NAME, NameOID.ORGANIZATION_NAME):
        for attribute in certificate.subject.get_attributes_for_oid(kind):
            plain = unicodedata.normalize("NFKD", str(attribute.value)).encode("ascii", "ignore").decode().lower()
            if label := re.sub(r"[^a-z0-9]+", "-", plain).strip("-")[:48]:
                return label
    return "certificate"


def _number(value: int, size: int) -> bytes:
    return value.to_bytes(size, "big")


def _text(text: str) -> bytes:
    """As Java's ``writeUTF`` has it; for ASCII that is a length and the text."""
    encoded = text.encode("ascii")
    return _number(len(encoded), 2) + encoded
