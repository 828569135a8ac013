"""The session CA: the one authority that one session's workload is going to trust."""

import secrets
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from sidecar.errors import SidecarError
from sidecar.pki.pem import to_pem

type CaKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey

VALIDITY = timedelta(hours=24)
SKEW = timedelta(hours=1)
ORGANIZATION = "Egress Sidecar"


class CaError(SidecarError):
    """The CA can't be made, read or used as it is."""


class CaConstraint(CaError):
    """The CA's own name constraints keep clients from accepting a leaf for this host."""


@dataclass(frozen=True, slots=True)
class SessionCa:
    """A CA that can sign leaves: its key, what the handshake shows, and what the workload is told to trust."""

    key: CaKey = field(repr=False, compare=False)
    chain: tuple[x509.Certificate, ...]  # the issuing certificate, then intermediates; the root only if it issues
    root: x509.Certificate  # the highest certificate that is known: the issuing one itself if self-signed

    @property
    def certificate(self) -> x509.Certificate:
        """The certificate that the key belongs to and that leaves name as their issuer."""
        return self.chain[0]

    @property
    def certificates(self) -> tuple[x509.Certificate, ...]:
        """All that are known, from the issuing one to the root."""
        return self.chain if self.root in self.chain else (*self.chain, self.root)

    @property
    def common_name(self) -> str:
        """The subject's common name; its whole subject where it has none."""
        names = self.certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        return str(names[0].value) if names else self.certificate.subject.rfc4514_string()

    @property
    def not_before(self) -> datetime:
        """Aware, UTC: from when the whole chain is valid."""
        return max(certificate.not_valid_before_utc for certificate in self.certificates)

    @property
    def not_after(self) -> datetime:
        """Aware, UTC: until when the whole chain is valid."""
        return min(certificate.not_valid_after_utc for certificate in self.certificates)

    def fingerprint(self) -> str:
        """SHA-256 of the issuing certificate, in lower-case hexadecimal."""
        return self.certificate.fingerprint(hashes.SHA256()).hex()

    def file_pem(self) -> bytes:
        """What the CA's own file holds, so that it is loaded again with its root."""
        return to_pem(self.certificates)

    def chain_pem(self) -> bytes:
        """What a server sends behind its leaf (RFC 8446, section 4.4.2)."""
        return to_pem(self.chain)

    def root_pem(self) -> bytes:
        """What a client is told to trust."""
        return to_pem([self.root])

    def key_pem(self) -> bytes:
        """The private key as unencrypted PKCS#8 (RFC 5958). For a file of mode 0600, and nowhere else."""
        return self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def issue_session_ca(
    *,
    common_name: str,
    now: datetime,
    validity: timedelta = VALIDITY,
    skew: timedelta = SKEW,
    organization: str = ORGANIZATION,
    path_length: int | None = 0,
    constraints: x509.NameConstraints | None = None,
    two_tier: bool = False,
) -> SessionCa:
    """
    Create the CA that one session's workload is going to trust: self-signed, or the only one below a root.

    Args:
        common_name: Usually the session's id, so that a certificate found elsewhere leads back to it.
            1 to 64 bytes of UTF-8 (RFC 5280, ub-common-name), printable.
        now: Aware, UTC. The caller's clock: tests and replays bring their own.
        validity: Counted from *now*; 24 hours by default.
        skew: Added before and after, for clocks that disagree; 1 hour by default.
        organization: The subject's organization; 1 to 64 bytes, printable.
        path_length: How many further CAs may stand below this one; ``None`` for no limit.
        constraints: Critical, in every certificate that is made: some clients pass over a root's.
        two_tier: Have it signed by a root whose key nobody has: it is gone when this returns.

    Returns:
        P-256 key and certificate, signed with SHA-256: ``CA:TRUE``, its own root or below one.

    Raises:
        CaError: *validity* isn't positive, *skew* or *path_length* is negative, the dates leave what a
            certificate can hold, or a name doesn't fit.

    Fields as in RFC 5280, sections 4.1.2.2 and 4.2.1.1, 4.2.1.2, 4.2.1.3, 4.2.1.9, 4.2.1.10.
    """
    now = utc(now)
    if validity <= timedelta(0):
        raise CaError(f"the CA's validity is {validity}; give it a positive one, such as 24 hours")
    if skew < timedelta(0):
        raise CaError(f"the CA's skew is {skew}; give it zero or more, such as 1 hour")
    if path_length is not None and path_length < 0:
        raise CaError(f"the CA's path length is {path_length}; give it 0 or more, or none")
    owner = x509.NameAttribute(NameOID.ORGANIZATION_NAME, _name(organization, "organization"))
    name = x509.NameAttribute(NameOID.COMMON_NAME, _name(common_name, "common name"))
    try:
        base = x509.CertificateBuilder().not_valid_before(now - skew).not_valid_after(now + validity + skew)
    except (ValueError, OverflowError):
        raise CaError(f"{validity} and {skew} around {now} leave the years 1950 to 9999; give shorter times") from None
    if constraints is not None:
        base = base.add_extension(constraints, critical=True)

    key, subject = ec.generate_private_key(ec.SECP256R1()), x509.Name([owner, name])
    usage = key_usage(digital_signature=True, key_cert_sign=True, crl_sign=True)
    own = base.subject_name(subject).add_extension(usage, critical=True)
    if not two_tier:
        certificate = _certify(own, key, path_length, key, subject)
        return SessionCa(key, (certificate,), certificate)
    root_key = ec.generate_private_key(ec.SECP256R1())
    root_subject = x509.Name([owner, x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, "Root"), name])
    usage = key_usage(digital_signature=False, key_cert_sign=True, crl_sign=True)
    above = base.subject_name(root_subject).add_extension(usage, critical=True)
    root = _certify(above, root_key, None if path_length is None else path_length + 1, root_key, root_subject)
    return SessionCa(key, (_certify(own, key, path_length, root_key, root_subject),), root)


def _certify(
    builder: x509.CertificateBuilder,
    key: ec.EllipticCurvePrivateKey,
    path_length: int | None,
    issuer_key: ec.EllipticCurvePrivateKey,
    issuer: x509.Name,
) -> x509.Certificate:
    public_key, above = key.public_key(), x509.SubjectKeyIdentifier.from_public_key(issuer_key.public_key())
    return (
        builder.issuer_name(issuer)
        .public_key(public_key)
        .serial_number(random_serial())
        .add_extension(x509.BasicConstraints(ca=True, path_length=path_length), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(above), critical=False)
        .sign(issuer_key, hashes.SHA256())
    )


def random_serial() -> int:
    """16 random bytes behind a leading 1, which keeps the number positive: 17 octets of the 20 allowed (RFC 5280)."""
    return int.from_bytes(b"\x01" + secrets.token_bytes(16))


def key_usage(*, digital_signature: bool, key_cert_sign: bool = False, crl_sign: bool = False) -> x509.KeyUsage:
    """The three uses that our certificates have; the other six never (RFC 5280, section 4.2.1.3)."""
    return x509.KeyUsage(
        digital_signature=digital_signature,
        key_cert_sign=key_cert_sign,
        crl_sign=crl_sign,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def utc(moment: datetime) -> datetime:
    """The same moment in UTC. A naive one is the caller's bug: local time would be taken for UTC."""
    if moment.tzinfo is None:
        raise ValueError("an aware datetime is needed")
    return moment.astimezone(UTC)


def _name(text: str, what: str) -> str:
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        size = 0
    if not 1 <= size <= 64 or not text.isprintable() or text.isspace():
        raise CaError(f"{text!r} can't be the CA's {what}; write 1 to 64 bytes of printable text")
    return text
