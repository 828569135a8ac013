"""Certificates and keys to test with, made on the spot; and the tools that judge ours."""

import os
import shutil
import ssl
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_network
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from sidecar.pki.pem import to_pem
from sidecar.pki.session_ca import CaKey, key_usage

NOW = datetime(2026, 5, 4, 12, 0, 0, tzinfo=UTC)
DAY = timedelta(days=1)


@dataclass
class Authority:
    key: CaKey
    certificate: x509.Certificate

    @property
    def pem(self) -> bytes:
        return to_pem([self.certificate])

    @property
    def key_pem(self) -> bytes:
        return self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def authority(
    name: str,
    parent: Authority | None = None,
    *,
    key: CaKey | None = None,
    begin: datetime = NOW - DAY,
    end: datetime = NOW + 90 * DAY,
    ca: bool = True,
    path_length: int | None = None,
    usage: bool = True,
    cert_sign: bool = True,
    identifier: bytes | None = None,
    identified: bool = True,
    extra: Sequence[tuple[x509.ExtensionType, bool]] = (),
) -> Authority:
    """A CA under *parent*, or a root; with the flaws that the arguments ask for."""
    key = key or ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    issuer = parent.certificate if parent else None
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(end)
        .add_extension(x509.BasicConstraints(ca, path_length if ca else None), critical=True)
    )
    own = (
        x509.SubjectKeyIdentifier(identifier)
        if identifier
        else x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    )
    if identified:
        above = _identifier(issuer) if issuer else own
        builder = builder.add_extension(own, critical=False).add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(above), critical=False
        )
    for extension, critical in extra:
        builder = builder.add_extension(extension, critical=critical)
    if usage:
        builder = builder.add_extension(key_usage(digital_signature=True, key_cert_sign=cert_sign), critical=True)
    return Authority(key, builder.sign(parent.key if parent else key, hashes.SHA256()))


def _identifier(issuer: x509.Certificate) -> x509.SubjectKeyIdentifier:
    try:
        return issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    except (x509.ExtensionNotFound, ValueError):
        return x509.SubjectKeyIdentifier.from_public_key(issuer.public_key())


def constraints(permitted: Sequence[str] = (), excluded: Sequence[str] = ()) -> tuple[x509.ExtensionType, bool]:
    """
    Critical name constraints, for `authority`: domains as they are written, networks in CIDR notation.

    A ``*``, which the library doesn't write, is put in by hand.
    """

    def names(texts: Sequence[str]) -> list[x509.GeneralName] | None:
        return [
            x509.IPAddress(ip_network(text)) if "/" in text else x509.DNSName(text.replace("*", "%")) for text in texts
        ] or None

    value = x509.NameConstraints(names(permitted), names(excluded))
    der = value.public_bytes()
    for text in (*permitted, *excluded):
        head = b"\x82" + bytes([len(text)])
        der = der.replace(head + text.replace("*", "%").encode(), head + text.encode())
    return (value if der == value.public_bytes() else x509.UnrecognizedExtension(value.oid, der)), True


def openssl(*arguments: str | Path, environment: dict[str, str] | None = None, stdin: str | None = None) -> str:
    """Run the tool and return what it says; fail with its words."""
    if shutil.which("openssl") is None:
        if os.environ.get("CI"):
            pytest.fail("openssl is missing")
        pytest.skip("openssl is missing")
    done = subprocess.run(
        ["openssl", *map(str, arguments)],
        capture_output=True,
        text=True,
        input=stdin,
        env=os.environ | (environment or {}),
        timeout=30,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def verify_strictly(
    folder: Path, leaf: x509.Certificate, root: x509.Certificate, chain: tuple[x509.Certificate, ...], at: datetime
) -> None:
    """Have OpenSSL verify a server's certificate as its strictest clients do."""
    (folder / "leaf.pem").write_bytes(to_pem([leaf]))
    (folder / "root.pem").write_bytes(to_pem([root]))
    (folder / "chain.pem").write_bytes(to_pem(chain or (root,)))
    when = str(int(at.timestamp()))
    openssl(
        "verify", "-x509_strict", "-no-CApath", "-attime", when, "-purpose", "sslserver",
        "-CAfile", folder / "root.pem", "-untrusted", folder / "chain.pem", folder / "leaf.pem",
    )  # fmt: skip


def shake_hands(server: ssl.SSLContext, client: ssl.SSLContext, name: str) -> dict[str, object]:
    """A TLS handshake in memory; returns the certificate as the client has verified it."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ours = server.wrap_bio(to_server, to_client, server_side=True)
    theirs = client.wrap_bio(to_client, to_server, server_hostname=name)
    done: set[ssl.SSLObject] = set()
    for _ in range(10):
        for side in (theirs, ours):
            try:
                side.do_handshake()
                done.add(side)
            except ssl.SSLWantReadError:
                pass
        if len(done) == 2:
            return dict(theirs.getpeercert() or {})
    raise AssertionError("the handshake doesn't end")
