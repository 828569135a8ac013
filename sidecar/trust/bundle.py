"""The trust bundle, as bytes: same input, same bytes."""

from collections.abc import Iterable

from cryptography import x509

from sidecar.pki.pem import certificates_in, to_pem
from sidecar.trust.anchors import unique


def trust_bundle(certificates: Iterable[x509.Certificate]) -> bytes:
    """
    Write certificates as a PEM bundle: each once, by its DER, in the order given, below a comment with its subject.

    The bundle is ASCII, whatever the subjects hold: readers exist that refuse anything else.
    """
    listed = unique(certificates)
    bundle = b"".join(_comment(certificate) + to_pem([certificate]) for certificate in listed)
    if listed and certificates_in(bundle, "the bundle") != listed:
        raise ValueError("the bundle doesn't read as it was written")
    return bundle


def _comment(certificate: x509.Certificate) -> bytes:
    # A subject is free text: a line break or five hyphens in it could start a block of their own.
    text = certificate.subject.rfc4514_string().replace("-----", "- - -")
    line = "".join(c if c.isascii() and c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return f"# {line}\n".encode("ascii")
