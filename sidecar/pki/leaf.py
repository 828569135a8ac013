"""Leaves: certificates for one host each, made while its first client waits."""

from collections.abc import Callable
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from sidecar.hosts import Host
from sidecar.pki.constraints import constraints_of
from sidecar.pki.session_ca import CaConstraint, CaError, SessionCa, key_usage, random_serial, utc
from sidecar.pki.trial import authority_key_identifier

LIFETIME = timedelta(
    days=30
)  # at most: clients refuse leaves of long validity, and the CA's own end comes first anyway
BACKDATE = timedelta(hours=1)
COMMON_NAME_LIMIT = 64  # RFC 5280, ub-common-name


class LeafMinter:
    """
    Mints leaves under one CA. All of them carry the same key, which is never the CA's.

    A leaf names what was asked for and nothing else: other names of the upstream would break a CA's name constraints.
    """

    def __init__(
        self,
        ca: SessionCa,
        now: Callable[[], datetime],
        *,
        key: ec.EllipticCurvePrivateKey | None = None,
        lifetime: timedelta = LIFETIME,
    ) -> None:
        """
        Prepare all that leaves have in common.

        Args:
            ca: Signs them.
            now: The caller's clock; aware, UTC.
            key: The leaves' key, P-256; made here if not given. Pass the former minter's when the CA rotates.
            lifetime: From *now*; cut off where the CA's own validity ends.
        """
        self.ca = ca
        self.key = key or ec.generate_private_key(ec.SECP256R1())
        self._now = now
        self._lifetime = lifetime
        self._not_before, self._not_after = ca.not_before, ca.not_after
        self._constraints = constraints_of(ca.certificates)
        public_key = self.key.public_key()
        self._base = (
            x509.CertificateBuilder()
            .issuer_name(ca.certificate.subject)
            .public_key(public_key)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(key_usage(digital_signature=True), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
            .add_extension(authority_key_identifier(ca.certificate), critical=False)
        )

    @property
    def expired(self) -> bool:
        """Whether the CA's validity, or that of a certificate above it, is over."""
        return self._now() >= self._not_after

    def refusal(self, host: Host) -> str | None:
        """Why no leaf is made for *host*: a constraint of a CA in the chain, for which clients would refuse it."""
        refusals = (constraints.refusal(host) for constraints in self._constraints)
        return next((why for why in refusals if why is not None), None)

    def mint(self, host: Host) -> x509.Certificate:
        """
        Make the leaf for one host.

        Args:
            host: The name or address that the client wants to talk to; the SAN's only entry, and the common
                name if it fits in 64 characters. If not, or if the CA has constraints, which clients apply to
                the subject as well, the subject is empty and the SAN critical.

        Returns:
            Valid from an hour ago, within the CA's validity. Served in front of ``ca.chain``.

        Raises:
            CaConstraint: The CA's name constraints don't permit *host*.
            CaError: The CA has expired or isn't valid yet.

        RFC 5280, section 4.2.1.6.
        """
        now = utc(self._now())
        if not self._not_before <= now < self._not_after:
            check_validity(self.ca, now)
        if (why := self.refusal(host)) is not None:
            raise CaConstraint(f"no leaf for {host}: {why}; use a CA that may answer for it")
        fits = len(host.name) <= COMMON_NAME_LIMIT and not self._constraints
        subject = [x509.NameAttribute(NameOID.COMMON_NAME, host.name)] if fits else []
        name = x509.DNSName(host.name) if host.address is None else x509.IPAddress(host.address)
        return (
            self._base.subject_name(x509.Name(subject))
            .serial_number(random_serial())
            .not_valid_before(max(now - BACKDATE, self._not_before))
            .not_valid_after(min(now + self._lifetime, self._not_after))
            .add_extension(x509.SubjectAlternativeName([name]), critical=not fits)
            .sign(self.ca.key, hashes.SHA256())
        )


def check_validity(ca: SessionCa, now: datetime) -> None:
    """
    Raises:
        CaError: The CA, or one above it, has expired or isn't valid yet.
    """
    if not ca.not_before <= utc(now) < ca.not_after:
        raise CaError(
            f"the CA {ca.common_name!r} is valid from {ca.not_before} to {ca.not_after}, "
            f"and now is {utc(now)}; mount a current one, or run bootstrap --force"
        )
