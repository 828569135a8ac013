"""Whether a stapled OCSP response says that a certificate is good."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from enum import Enum
from functools import lru_cache

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, padding, rsa
from cryptography.x509 import ocsp
from cryptography.x509.oid import ExtendedKeyUsageOID

SKEW = timedelta(minutes=5)  # between the responder's clock and ours

# SHA-1 is fine as the name of an issuer, but not under a signature.
_HASHES = (hashes.SHA256, hashes.SHA384, hashes.SHA512)


class Staple(Enum):
    """What a response comes to."""

    GOOD = "good"
    REVOKED = "revoked"
    NOTHING = "nothing"  # it proves nothing: not about this certificate, not by its issuer, not of today


@lru_cache(maxsize=1024)
def wants_staple(certificate: x509.Certificate) -> bool:
    """Whether a certificate says that no handshake is to be trusted without a response (RFC 7633, "must-staple")."""
    try:
        feature = certificate.extensions.get_extension_for_class(x509.TLSFeature).value
    except x509.ExtensionNotFound:
        return False
    return x509.TLSFeatureType.status_request in feature


def judge_staple(der: bytes, leaf: x509.Certificate, issuer: x509.Certificate, now: datetime) -> tuple[Staple, str]:
    """
    Judge the response that came with a handshake.

    Args:
        der: The response; empty if none came.
        issuer: Of the leaf, as verified.
        now: Aware, UTC.

    Returns:
        The verdict, and why.

    RFC 6960, sections 3.2 and 4.2.2; of RFC 6066, section 8, the one response that servers staple.
    """
    if not der:
        return Staple.NOTHING, "none came"
    try:
        response = ocsp.load_der_ocsp_response(der)
        if response.response_status is not ocsp.OCSPResponseStatus.SUCCESSFUL:
            return Staple.NOTHING, f"the responder says {response.response_status.name.lower()}"
        if not any(_signed(response, signer) for signer in _signers(response, issuer, now)):
            return Staple.NOTHING, "it isn't signed by the certificate's issuer, nor by a responder of its"
        single = next((one for one in response.responses if _is_about(one, leaf, issuer)), None)
    except (ValueError, TypeError, UnsupportedAlgorithm, x509.DuplicateExtension):
        return Staple.NOTHING, "it can't be parsed"
    if single is None:
        return Staple.NOTHING, "it is about another certificate"
    begin, end = single.this_update_utc, single.next_update_utc
    if now < begin - SKEW:
        return Staple.NOTHING, f"it isn't valid before {begin:%Y-%m-%dT%H:%M:%SZ}"
    if end is None:
        return Staple.NOTHING, "it doesn't say how long it is valid"
    if now > end + SKEW:
        return Staple.NOTHING, f"it expired at {end:%Y-%m-%dT%H:%M:%SZ}"
    match single.certificate_status:
        case ocsp.OCSPCertStatus.GOOD:
            return Staple.GOOD, ""
        case ocsp.OCSPCertStatus.REVOKED:
            return Staple.REVOKED, "it says that the certificate is revoked"
    return Staple.NOTHING, "the responder doesn't know the certificate"


def _is_about(single: ocsp.OCSPSingleResponse, leaf: x509.Certificate, issuer: x509.Certificate) -> bool:
    if single.serial_number != leaf.serial_number:
        return False
    asked = ocsp.OCSPRequestBuilder().add_certificate(leaf, issuer, single.hash_algorithm).build()
    return (single.issuer_name_hash, single.issuer_key_hash) == (asked.issuer_name_hash, asked.issuer_key_hash)


def _signers(response: ocsp.OCSPResponse, issuer: x509.Certificate, now: datetime) -> Iterator[x509.Certificate]:
    """The issuer, and who it has delegated to: certificates that it has issued for OCSP signing."""
    yield issuer
    for delegate in response.certificates:
        try:
            delegate.verify_directly_issued_by(issuer)
            usage = delegate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm, x509.ExtensionNotFound):
            continue
        valid = delegate.not_valid_before_utc <= now <= delegate.not_valid_after_utc
        if valid and ExtendedKeyUsageOID.OCSP_SIGNING in usage:
            yield delegate


def _signed(response: ocsp.OCSPResponse, signer: x509.Certificate) -> bool:
    key, signature, signed = signer.public_key(), response.signature, response.tbs_response_bytes
    try:
        match key:
            case ed25519.Ed25519PublicKey() | ed448.Ed448PublicKey():
                key.verify(signature, signed)
                return True
        algorithm = response.signature_hash_algorithm
        if not isinstance(algorithm, _HASHES):
            return False
        match key:
            case rsa.RSAPublicKey():
                key.verify(signature, signed, padding.PKCS1v15(), algorithm)
            case ec.EllipticCurvePublicKey():
                key.verify(signature, signed, ec.ECDSA(algorithm))
            case _:
                return False
    except InvalidSignature:
        return False
    return True
