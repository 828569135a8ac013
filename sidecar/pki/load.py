"""A CA from the text of its files: what would make clients refuse its leaves is found here, before the first one."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import pairwise

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from sidecar.pki.extensions import extensions_of
from sidecar.pki.pem import certificates_in
from sidecar.pki.session_ca import CaError, CaKey, SessionCa
from sidecar.pki.trial import trial
from sidecar.pki.usable import check_ca, public_key_of

_CURVES = (ec.SECP256R1, ec.SECP384R1, ec.SECP521R1)


@dataclass(frozen=True, slots=True)
class CaText:
    """The files of one CA and what errors call them. Content isn't shown: one of them is the key."""

    certificate: bytes = field(repr=False)  # the issuing certificate, then its chain
    key: bytes = field(repr=False)
    roots: bytes | None = field(default=None, repr=False)  # candidates for the root, where the chain doesn't end in it
    certificate_name: str = "ca.pem"
    key_name: str = "ca-key.pem"
    roots_name: str = "ca.crt"


def parse_ca(text: CaText, now: datetime) -> SessionCa:
    """
    Check and combine the files of a CA.

    Args:
        text: PEM. Key: RSA of 2048 bits or more, or ECDSA on P-256, P-384 or P-521; PKCS#8 or traditional, unencrypted.
        now: Aware, UTC.

    Returns:
        The CA, its chain in order and verified link by link.

    Raises:
        PemError: A certificate file is empty, no PEM, or broken.
        CaError: The key can't be read, belongs to another certificate, or is of another kind; a certificate isn't valid
            now, isn't a CA's, may not sign certificates or servers', or is weaker than clients accept; a link of the
            chain doesn't verify, or OpenSSL refuses a leaf below it.

    RFC 5280, sections 4.2.1.3, 4.2.1.9, 4.2.1.12 and 6.1.
    """
    chain = certificates_in(text.certificate, text.certificate_name)
    key = _parse_key(text.key, text.key_name)
    _check_pair(key, chain, text)
    for number, certificate in enumerate(chain, start=1):
        check_ca(certificate, _nth(text.certificate_name, number, len(chain)), now)
    for below, (child, parent) in enumerate(pairwise(chain), start=1):
        if not _issued(child, parent, below):
            raise CaError(
                f"{text.certificate_name}: certificate {below + 1} did not issue certificate {below}; "
                "write the issuing certificate first, then the one that issued it, and so on"
            )
    ca = SessionCa(key, *_with_root(chain, text, now))
    if (why := trial(ca, now)) is not None:
        raise CaError(f"{text.certificate_name}: clients refuse what this CA signs: {why}; have its issuer renew it")
    return ca


def _parse_key(pem: bytes, name: str) -> CaKey:
    if not pem.strip():
        raise CaError(f"{name} is empty; write the CA's private key in PEM to it")
    # "from None" throughout: a library's error may quote what it read.
    try:
        key = load_pem_private_key(pem, password=None)
    except TypeError:
        raise CaError(f"{name} is encrypted; decrypt it with 'openssl pkey', and keep it in a Secret instead") from None
    except (ValueError, UnsupportedAlgorithm):
        raise CaError(f"{name} holds no private key that can be read; write one in PEM, as PKCS#8") from None
    if isinstance(key, rsa.RSAPrivateKey) and key.key_size >= 2048:
        return key
    if isinstance(key, ec.EllipticCurvePrivateKey) and isinstance(key.curve, _CURVES):
        return key
    raise CaError(
        f"{name} is of a kind that clients don't accept from a CA; use ECDSA on P-256, or RSA of 2048 bits or more"
    )


def _check_pair(key: CaKey, chain: Sequence[x509.Certificate], text: CaText) -> None:
    owned = [public_key_of(certificate) == key.public_key() for certificate in chain]
    if owned[0]:
        return
    if any(owned):
        raise CaError(
            f"{text.key_name} belongs to certificate {owned.index(True) + 1} of {text.certificate_name}, "
            "not to the first; write the issuing certificate first, then the one that issued it, and so on"
        )
    raise CaError(
        f"{text.key_name} does not belong to {text.certificate_name} (public keys differ); "
        "mount the pair of one session, or run bootstrap --force"
    )


def _with_root(
    chain: tuple[x509.Certificate, ...], text: CaText, now: datetime
) -> tuple[tuple[x509.Certificate, ...], x509.Certificate]:
    """The chain to send and the root above it, which may be given in another file, with others between."""
    if _issued(chain[-1], chain[-1], 0):
        return chain[:-1] or chain, chain[-1]
    if text.roots is None or not text.roots.strip():
        return chain, chain[-1]
    roots = certificates_in(text.roots, text.roots_name)
    climbed = chain
    while not _issued(climbed[-1], climbed[-1], 0):
        above = next((n for n, root in enumerate(roots) if _issued(climbed[-1], root, len(climbed))), None)
        if above is None or roots[above] in climbed:
            break
        check_ca(roots[above], _nth(text.roots_name, above + 1, len(roots)), now)
        climbed = (*climbed, roots[above])
    if len(climbed) > len(chain):
        return climbed[:-1], climbed[-1]
    if chain[-1] in roots:  # some issuers give themselves, not their root
        return chain, chain[-1]
    raise CaError(
        f"{text.roots_name} did not issue the last certificate of {text.certificate_name}; "
        "mount the files of one issuer, all renewed together"
    )


def _issued(child: x509.Certificate, parent: x509.Certificate, below: int) -> bool:
    """Whether *parent* signed *child*, and allows as many CAs below itself as there are."""
    try:
        child.verify_directly_issued_by(parent)
        allowed = extensions_of(parent).get_extension_for_class(x509.BasicConstraints).value.path_length
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm, x509.ExtensionNotFound):
        return False
    return allowed is None or below <= allowed


def _nth(name: str, number: int, of: int) -> str:
    return name if of == 1 else f"{name}: certificate {number}"
