"""A pod's own certificate: for the names that it is reached by, with a key of its own."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from sidecar.errors import SidecarError
from sidecar.hosts import Host
from sidecar.pki.constraints import constraints_of
from sidecar.pki.extensions import extensions_of
from sidecar.pki.leaf import BACKDATE, COMMON_NAME_LIMIT, check_validity
from sidecar.pki.pem import to_pem
from sidecar.pki.session_ca import CaKey, SessionCa, key_usage, random_serial, utc
from sidecar.pki.trial import authority_key_identifier

VALIDITY = timedelta(days=90)


class ServingError(SidecarError):
    """The certificate can't be made, or what is there isn't ours to replace."""


class Usage(StrEnum):
    """What the certificate is for: to be connected to, to connect with it (mutual TLS), or both."""

    SERVER = "server"
    CLIENT = "client"
    BOTH = "both"

    @property
    def purposes(self) -> tuple[x509.ObjectIdentifier, ...]:
        server, client = ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH
        return {Usage.SERVER: (server,), Usage.CLIENT: (client,), Usage.BOTH: (server, client)}[self]


class KeyType(StrEnum):
    P256 = "p-256"
    RSA2048 = "rsa-2048"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """The certificate that a pod should have."""

    hosts: tuple[Host, ...]  # at least one; each once
    usage: Usage = Usage.BOTH
    key_type: KeyType = KeyType.P256
    validity: timedelta = VALIDITY


@dataclass(frozen=True, slots=True)
class Serving:
    """A key and its certificate, as a server loads them."""

    key: CaKey = field(repr=False, compare=False)
    certificate: x509.Certificate
    chain: tuple[x509.Certificate, ...]  # above the certificate

    def fingerprint(self) -> str:
        """SHA-256 of the certificate, in lower-case hexadecimal."""
        return self.certificate.fingerprint(hashes.SHA256()).hex()

    def certificate_pem(self) -> bytes:
        """What a server sends, the leaf first (RFC 8446, section 4.4.2)."""
        return to_pem([self.certificate, *self.chain])

    def key_pem(self) -> bytes:
        """The private key as unencrypted PKCS#8 (RFC 5958)."""
        return self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def issue_serving(ca: SessionCa, wish: Wish, now: datetime) -> Serving:
    """
    Make a new key, and a certificate for it.

    Args:
        ca: Signs it.
        wish: All its names become the SAN, the first that fits in 64 characters the common name.
        now: Aware, UTC.

    Returns:
        Valid from an hour ago until `end_of` says, never outside of the CA's validity. Its chain has the root only
        if that is what signed it.

    Raises:
        CaError: The CA has expired or isn't valid yet.
        ServingError: The CA, or one above it, may not certify one of the names or usages.

    Fields as in RFC 5280, sections 4.2.1.1 to 4.2.1.3, 4.2.1.6 and 4.2.1.12.
    """
    now = utc(now)
    check_validity(ca, now)
    _check_allowed(ca, wish)
    key = _new_key(wish.key_type)
    common_name = next((host.name for host in wish.hosts if len(host.name) <= COMMON_NAME_LIMIT), None)
    subject = [x509.NameAttribute(NameOID.COMMON_NAME, common_name)] if common_name is not None else []
    names = [x509.DNSName(host.name) if host.address is None else x509.IPAddress(host.address) for host in wish.hosts]
    public_key = key.public_key()
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name(subject))
        .issuer_name(ca.certificate.subject)
        .public_key(public_key)
        .serial_number(random_serial())
        .not_valid_before(max(now - BACKDATE, ca.not_before))
        .not_valid_after(end_of(ca, wish, now))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(key_usage(digital_signature=True), critical=True)
        .add_extension(x509.ExtendedKeyUsage(wish.usage.purposes), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
        .add_extension(authority_key_identifier(ca.certificate), critical=False)
        .add_extension(x509.SubjectAlternativeName(names), critical=not subject)
        .sign(ca.key, hashes.SHA256())
    )
    return Serving(key, certificate, ca.chain)


def end_of(ca: SessionCa, wish: Wish, now: datetime) -> datetime:
    """When a certificate that is made now ends: what was asked for, or the CA's end if that comes first."""
    return min(utc(now) + wish.validity, ca.not_after)


def _new_key(key_type: KeyType) -> CaKey:
    if key_type is KeyType.RSA2048:
        return rsa.generate_private_key(public_exponent=65537, key_size=2048)
    return ec.generate_private_key(ec.SECP256R1())


def _check_allowed(ca: SessionCa, wish: Wish) -> None:
    for authority in ca.certificates:
        if missing := _missing_purpose(authority, wish.usage):
            raise ServingError(
                f"{_subject(authority)!r} may not certify for TLS {missing} use (its extended key usage lacks it); "
                "give another --usage, or issue that CA without extended key usage"
            )
    for constraints in constraints_of(ca.certificates):
        for host in wish.hosts:
            if (why := constraints.refusal(host)) is not None:
                raise ServingError(
                    f"{host.name!r} can't be certified: {why}; leave that name out, "
                    "or use a CA whose constraints have room for it"
                )


def _missing_purpose(authority: x509.Certificate, usage: Usage) -> str | None:
    # No rule of RFC 5280's, but OpenSSL, Go and NSS take a CA's purposes as the most that those below it may have.
    try:
        allowed = set(extensions_of(authority).get_extension_for_class(x509.ExtendedKeyUsage).value)
    except x509.ExtensionNotFound:
        return None
    if ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE in allowed:
        return None
    words = {ExtendedKeyUsageOID.SERVER_AUTH: "server", ExtendedKeyUsageOID.CLIENT_AUTH: "client"}
    return next((words[purpose] for purpose in usage.purposes if purpose not in allowed), None)


def _subject(certificate: x509.Certificate) -> str:
    names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(names[0].value) if names else certificate.subject.rfc4514_string()
