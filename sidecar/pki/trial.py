"""A leaf on trial: what OpenSSL, as the clients have it, says of a CA's chain."""

from datetime import datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from OpenSSL.crypto import X509, Error, X509Store, X509StoreContext, X509StoreContextError, X509StoreFlags

from sidecar.pki.constraints import constraints_of
from sidecar.pki.extensions import extensions_of
from sidecar.pki.session_ca import SessionCa, key_usage, random_serial, utc

_NOBODY = x509.RegisteredID(x509.ObjectIdentifier("2.25.1"))  # of a kind that no constraint is about


def trial(ca: SessionCa, now: datetime) -> str | None:
    """
    Verify a leaf of *ca*, with nothing but its root trusted.

    Returns:
        Why it is refused, in OpenSSL's words: an intermediate outside of the constraints above it, a critical extension
        that nobody knows, key identifiers that don't belong together, ...

    RFC 5280, section 6.1.
    """
    return _verify(ca, now, 0)


def doubts(ca: SessionCa, now: datetime) -> tuple[str, ...]:
    """What works with many clients, but not with all: for the logs, with what to do."""
    found = []
    if ca.root.issuer != ca.root.subject:
        subject = ca.root.subject.rfc4514_string()
        found.append(f"{subject} is no root, and few clients trust an intermediate alone; mount its root as ca.crt")
    if (why := _verify(ca, now, X509StoreFlags.X509_STRICT)) is not None:
        found.append(f"strict clients, such as Python 3.13 and later, refuse the CA: {why}; have it issued anew")
    for constraints in constraints_of(ca.certificates):
        if constraints.have_stars:
            found.append(
                f"the name constraints of {constraints.subject} hold a '*', which is no wildcard there: permitted are "
                f"{constraints.permitted or 'all'}, excluded {constraints.excluded or 'none'}, each as it is written, "
                "and some clients refuse such a CA whole; write the domain alone: it stands for all below it"
            )
    return tuple(found)


def _verify(ca: SessionCa, now: datetime, flags: int) -> str | None:
    moment, store = utc(now), X509Store()
    try:
        store.add_cert(X509.from_cryptography(ca.root))
        store.set_flags(X509StoreFlags.PARTIAL_CHAIN | flags)  # the root may not be known
        store.set_time(moment.replace(tzinfo=None))
        untrusted = [X509.from_cryptography(certificate) for certificate in ca.chain]
        X509StoreContext(store, X509.from_cryptography(_leaf(ca, moment)), untrusted).verify_certificate()
    except X509StoreContextError as e:
        return str(e)
    except (Error, ValueError, KeyError, TypeError):  # what one library reads, the other needn't
        return "a certificate of its chain can't be read by OpenSSL"
    return None


def _leaf(ca: SessionCa, now: datetime) -> x509.Certificate:
    key = ec.generate_private_key(ec.SECP256R1()).public_key()
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([]))
        .issuer_name(ca.certificate.subject)
        .public_key(key)
        .serial_number(random_serial())
        .not_valid_before(max(now - timedelta(minutes=1), ca.not_before))
        .not_valid_after(ca.not_after)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(key_usage(digital_signature=True), critical=True)
        .add_extension(x509.SubjectAlternativeName([_NOBODY]), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        .add_extension(authority_key_identifier(ca.certificate), critical=False)
        .sign(ca.key, hashes.SHA256())
    )


def authority_key_identifier(ca: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    """
    What leaves name their issuer's key by.

    Copied, not computed: an issuer may derive its identifier in a way of its own (RFC 7093), and clients compare.
    """
    try:
        identifier = extensions_of(ca).get_extension_for_class(x509.SubjectKeyIdentifier).value
    except x509.ExtensionNotFound:
        identifier = x509.SubjectKeyIdentifier.from_public_key(ca.public_key())
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier)
