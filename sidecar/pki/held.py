"""The certificate that a pod has already: ours and good, ours and due for another, or somebody else's."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import pairwise

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509.oid import NameOID

from sidecar.pki.pem import PemError, certificates_in
from sidecar.pki.serving import KeyType, Serving, ServingError, Wish, end_of
from sidecar.pki.session_ca import SessionCa, utc

_REPLACE = "name another --out, or let --force replace it"


@dataclass(frozen=True, slots=True)
class Held:
    """The files of a folder and what errors call them; ``None`` for those that aren't there."""

    certificate: bytes | None = field(repr=False)
    key: bytes | None = field(repr=False)
    root: bytes | None = field(repr=False)
    certificate_name: str = "tls.crt"
    key_name: str = "tls.key"
    root_name: str = "ca.crt"


def ours(held: Held, ca: SessionCa) -> Serving | None:
    """
    The pair that is there, if it was issued under this CA's root; ``None`` if there is none.

    Raises:
        ServingError: What is there is half a pair, no pair, can't be read, or was issued by somebody else: then it
            isn't ours to replace.
    """
    if held.certificate is None and held.key is None:
        if held.root is not None and held.root != ca.root_pem():
            raise ServingError(f"{held.root_name} is there, and isn't this CA's root; {_REPLACE}")
        return None
    if held.certificate is None or held.key is None:
        there, missing = held.certificate_name, held.key_name
        if held.certificate is None:
            there, missing = missing, there
        raise ServingError(f"{there} is there without {missing}; take it away, or let --force replace it")
    try:
        leaf, *chain = certificates_in(held.certificate, held.certificate_name)
    except PemError as e:
        raise ServingError(f"{str(e).partition(';')[0]}, so it isn't ours to replace; {_REPLACE}") from None
    try:
        key = load_pem_private_key(held.key, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):  # their texts may quote the key
        raise ServingError(f"{held.key_name} holds no private key that can be read; {_REPLACE}") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) or not _same_key(leaf, key):
        raise ServingError(
            f"{held.key_name} does not belong to {held.certificate_name} (public keys differ); {_REPLACE}"
        )
    if not _under(ca, (leaf, *chain)):
        issuer = leaf.issuer.get_attributes_for_oid(NameOID.COMMON_NAME)
        name = str(issuer[0].value) if issuer else leaf.issuer.rfc4514_string()
        raise ServingError(
            f"{held.certificate_name} was issued by {name!r}, not under the root of {ca.common_name!r}; {_REPLACE}"
        )
    return Serving(key, leaf, tuple(chain))


def why_renew(serving: Serving, ca: SessionCa, wish: Wish, now: datetime) -> str | None:
    """
    Say why a pair of ours has to be made anew.

    A certificate that is two thirds through its life is, as cert-manager does it by default; unless the CA ends so
    soon that a new one would last no longer.

    Returns:
        ``None`` if it does; else why not, after "because".
    """
    now, certificate = utc(now), serving.certificate
    if serving.chain != ca.chain or not _issued(certificate, ca.certificate):
        return "the CA's certificate has changed"
    begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if not begin <= now < end:
        return f"it was valid from {begin:%Y-%m-%dT%H:%M:%SZ} to {end:%Y-%m-%dT%H:%M:%SZ}"
    if end - now <= (end - begin) / 3 and end < end_of(ca, wish, now):
        return f"it ends at {end:%Y-%m-%dT%H:%M:%SZ}"
    if difference := ", ".join(_differences(certificate, wish)):
        return difference
    if _key_type(serving) is not wish.key_type:
        return f"its key isn't {wish.key_type}"
    return None


def names_in(certificate: x509.Certificate) -> frozenset[str]:
    """The names and addresses that a certificate is for."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (ValueError, x509.ExtensionNotFound):
        return frozenset()
    return frozenset(str(name.value) for name in names if isinstance(name, x509.DNSName | x509.IPAddress))


def _differences(certificate: x509.Certificate, wish: Wish) -> Iterator[str]:
    has, wants = names_in(certificate), frozenset(host.name for host in wish.hosts)
    if has - wants:
        yield f"it names {', '.join(sorted(has - wants))}, too"
    if wants - has:
        yield f"it doesn't name {', '.join(sorted(wants - has))}"
    try:
        purposes = set(certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)
    except (ValueError, x509.ExtensionNotFound):
        purposes = set()
    if purposes != set(wish.usage.purposes):
        yield f"its usage isn't {wish.usage}"


def _key_type(serving: Serving) -> KeyType | None:
    match serving.key:
        case ec.EllipticCurvePrivateKey(curve=ec.SECP256R1()):
            return KeyType.P256
        case rsa.RSAPrivateKey(key_size=2048):
            return KeyType.RSA2048
    return None


def _same_key(leaf: x509.Certificate, key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> bool:
    try:
        return leaf.public_key() == key.public_key()
    except (ValueError, UnsupportedAlgorithm):
        return False


def _under(ca: SessionCa, chain: Sequence[x509.Certificate]) -> bool:
    if not all(_issued(child, parent) for child, parent in pairwise(chain)):
        return False
    return chain[-1] in (ca.certificate, ca.root) or any(_issued(chain[-1], top) for top in (ca.certificate, ca.root))


def _issued(child: x509.Certificate, parent: x509.Certificate) -> bool:
    try:
        child.verify_directly_issued_by(parent)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return True
