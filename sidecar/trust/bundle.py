"""The trust bundle and the other files of the trust folder, as bytes: same input, same bytes."""

from collections.abc import Iterable
from pathlib import PurePath

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from sidecar.pki import SessionCa
from sidecar.pki.pem import certificates_in, to_pem
from sidecar.trust.env import BUNDLE, CA, ENV, env_file
from sidecar.trust.roots import public_roots


def trust_bundle(certificates: Iterable[x509.Certificate]) -> bytes:
    """
    Write certificates as a PEM bundle: each once, by its DER, in the order given, below a comment with its subject.

    The bundle is ASCII, whatever the subjects hold: readers exist that refuse anything else.
    """
    unique = {certificate.public_bytes(Encoding.DER): certificate for certificate in certificates}
    bundle = b"".join(_comment(certificate) + to_pem([certificate]) for certificate in unique.values())
    if unique and certificates_in(bundle, "the bundle") != tuple(unique.values()):
        raise ValueError("the bundle doesn't read as it was written")
    return bundle


def trust_files(ca: SessionCa, mount: PurePath, roots: Iterable[x509.Certificate] | None = None) -> dict[str, bytes]:
    """
    Make the files that a workload is given.

    Args:
        ca: The session CA; only its root's certificate is used.
        mount: Where the workload will find the folder; absolute.
        roots: What it trusts besides; Mozilla's roots if not given.

    Returns:
        ``ca.pem`` (the session CA alone), ``bundle.pem`` (roots, then the session CA) and ``env`` (variables).
        No file holds a key.

    Raises:
        TrustError: *mount* can't be written into variables.
    """
    trusted = (*(public_roots() if roots is None else roots), ca.root)
    return {CA: ca.root_pem(), BUNDLE: trust_bundle(trusted), ENV: env_file(mount)}


def _comment(certificate: x509.Certificate) -> bytes:
    # A subject is free text: a line break or five hyphens in it could start a block of their own.
    text = certificate.subject.rfc4514_string().replace("-----", "- - -")
    line = "".join(c if c.isascii() and c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return f"# {line}\n".encode("ascii")
