"""An upstream with every freedom that TLS gives a server: chain, suites, a stapled response, asking for a client."""

import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from OpenSSL import SSL

from sidecar.pki.pem import to_pem
from sidecar.pki.session_ca import CaKey
from tests.pki.authorities import Authority

DAY = timedelta(days=1)


def certificate(
    name: str,
    issuer: Authority | None = None,
    *extensions: x509.ExtensionType,
    days: int = 30,
    key: CaKey | None = None,
    ca: bool = False,
) -> Authority:
    """A server's or client's certificate for *name*, or a CA's; a root without an *issuer*."""
    key, now = key or ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    signer = issuer.key if issuer else key
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.certificate.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - DAY)
        .not_valid_after(now - DAY + days * DAY)
        .add_extension(x509.BasicConstraints(ca, None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
    )
    for extension in extensions:
        builder = builder.add_extension(extension, critical=False)
    return Authority(key, builder.sign(signer, hashes.SHA256()))


MUST_STAPLE = x509.TLSFeature([x509.TLSFeatureType.status_request])
OCSP_SIGNING = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.OCSP_SIGNING])


def staple(
    of: Authority,
    issuer: Authority,
    *,
    by: Authority | None = None,
    status: ocsp.OCSPCertStatus = ocsp.OCSPCertStatus.GOOD,
    begin: timedelta = -DAY,
    end: timedelta | None = DAY,
) -> bytes:
    """An OCSP response about *of* by its issuer, or by a responder that comes along in it."""
    now, signer = datetime.now(UTC).replace(microsecond=0), by or issuer
    builder = (
        ocsp.OCSPResponseBuilder()
        .add_response(
            of.certificate,
            issuer.certificate,
            hashes.SHA1(),  # names the issuer, as responders do
            status,
            now + begin,
            now + end if end is not None else None,
            now + begin if status is ocsp.OCSPCertStatus.REVOKED else None,
            None,
        )
        .responder_id(ocsp.OCSPResponderEncoding.HASH, signer.certificate)
    )
    if by is not None:
        builder = builder.certificates([by.certificate])
    return builder.sign(signer.key, hashes.SHA256()).public_bytes(Encoding.DER)


def revocation_list(issuer: Authority, *revoked: Authority, end: timedelta = DAY) -> bytes:
    """The CRL of *issuer*, PEM."""
    now = datetime.now(UTC)
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(issuer.certificate.subject)
        .last_update(now - 2 * DAY)
        .next_update(now + end)
    )
    for one in revoked:
        entry = x509.RevokedCertificateBuilder().serial_number(one.certificate.serial_number).revocation_date(now)
        builder = builder.add_revoked_certificate(entry.build())
    return builder.sign(issuer.key, hashes.SHA256()).public_bytes(Encoding.PEM)


class Served:
    """What an upstream has seen."""

    def __init__(self) -> None:
        self.requests: list[bytes] = []
        self.clients: list[str | None] = []  # common names of client certificates, by handshake; None: none given


@contextmanager
def answering(
    chain: Sequence[Authority],
    *,
    stapled: bytes = b"",
    ciphers: str | None = None,
    version: int | None = None,
    asks: Path | None = None,
    insists: bool = True,
) -> Iterator[tuple[int, Served]]:
    """
    Serve TLS on a free loopback port, one request a connection, answered with "hello".

    Args:
        chain: The server's certificate first; with its key.
        version: The only one spoken.
        asks: Ask for a client certificate under the root in this file.
        insists: End the handshake without one.
    """
    leaf, *issuers = chain
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    context.use_certificate(leaf.certificate)
    context.use_privatekey(leaf.key)
    for issuer in issuers:
        context.add_extra_chain_cert(issuer.certificate)
    context.set_session_id(b"upstream")
    if ciphers is not None:
        context.set_cipher_list(ciphers.encode())
    if version is not None:
        context.set_min_proto_version(version)
        context.set_max_proto_version(version)
    if stapled:
        context.set_ocsp_server_callback(lambda connection, data: stapled)
    if asks is not None:
        context.load_verify_locations(str(asks))
        mode = SSL.VERIFY_PEER | (SSL.VERIFY_FAIL_IF_NO_PEER_CERT if insists else 0)
        context.set_verify(mode, lambda *verdict: bool(verdict[-1]))
    served = Served()
    listener = socket.create_server(("127.0.0.1", 0))

    def answer(raw: socket.socket) -> None:
        raw.settimeout(None)
        connection = SSL.Connection(context, raw)
        connection.set_accept_state()
        try:
            connection.do_handshake()
            peer = connection.get_peer_certificate(as_cryptography=True)
            names = peer.subject.get_attributes_for_oid(NameOID.COMMON_NAME) if peer else []
            served.clients.append(str(names[0].value) if names else None)
            head = b""
            while b"\r\n\r\n" not in head:
                head += connection.recv(65536)
            served.requests.append(head)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\nConnection: close\r\n\r\nhello\n")
            connection.shutdown()
        except (SSL.Error, OSError):
            pass  # the other side has refused us, as it should
        finally:
            raw.close()

    def accept() -> None:
        while True:
            try:
                raw, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=answer, args=(raw,), daemon=True).start()

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    try:
        yield listener.getsockname()[1], served
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(10)


def rsa_key() -> CaKey:
    return rsa.generate_private_key(65537, 2048)


def write(path: Path, *certificates: Authority) -> Path:
    path.write_bytes(to_pem(one.certificate for one in certificates))
    return path
