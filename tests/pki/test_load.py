import re
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from sidecar.errors import SidecarError
from sidecar.pki import CaError, CaText, issue_session_ca, parse_ca
from sidecar.pki.trial import doubts
from tests.pki.authorities import DAY, NOW, Authority, authority, constraints, openssl

ROOT = authority("root", path_length=1)
ISSUING = authority("issuing", ROOT, path_length=0)
OTHER = authority("other")
ROOT_OF_TWO = authority("root of two", path_length=2)
BETWEEN = authority("between", ROOT_OF_TWO, path_length=1)
LOWEST = authority("lowest", BETWEEN, path_length=0)
UNIDENTIFIED = authority("unidentified", identified=False)
KONFLUX = authority("konflux", extra=[constraints(["*.redhat.com"], ["*"])])
SESSION = issue_session_ca(common_name="session", now=NOW)


def test_our_own_ca_comes_back_as_it_was() -> None:
    ca = parse_ca(CaText(SESSION.chain_pem(), SESSION.key_pem()), NOW)

    assert ca == SESSION
    assert ca.key_pem() == SESSION.key_pem()


def test_a_traditional_key_is_read() -> None:
    assert isinstance(ISSUING.key, ec.EllipticCurvePrivateKey)
    key = ISSUING.key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())

    assert parse_ca(CaText(ISSUING.pem, key), NOW).key_pem() == ISSUING.key_pem


def test_an_rsa_key_is_read() -> None:
    ca = authority("rsa", key=rsa.generate_private_key(65537, 2048))

    assert parse_ca(CaText(ca.pem, ca.key_pem), NOW).certificate == ca.certificate


@pytest.mark.parametrize(
    ("certificate", "roots", "root"),
    [
        pytest.param(ISSUING.pem + ROOT.pem, None, ROOT, id="a chain that ends in its root shows all but the root"),
        pytest.param(ISSUING.pem, ROOT.pem, ROOT, id="the root comes from ca.crt"),
        pytest.param(ISSUING.pem, OTHER.pem + ROOT.pem, ROOT, id="ca.crt may hold others too"),
        pytest.param(ISSUING.pem, ISSUING.pem, ISSUING, id="an issuer may name itself in ca.crt"),
        pytest.param(ISSUING.pem, None, ISSUING, id="without a root, the highest known certificate is trusted"),
        pytest.param(ISSUING.pem, b"\n", ISSUING, id="an empty ca.crt is none"),
        pytest.param(ISSUING.pem, BETWEEN.pem + ROOT.pem, ROOT, id="ca.crt with a stranger before the root"),
    ],
)
def test_the_chain_is_split_from_the_root(certificate: bytes, roots: bytes | None, root: Authority) -> None:
    ca = parse_ca(CaText(certificate, ISSUING.key_pem, roots), NOW)

    assert ca.chain == (ISSUING.certificate,)
    assert ca.root == root.certificate


def test_what_is_between_chain_and_root_may_lie_in_ca_crt() -> None:
    ca = parse_ca(CaText(LOWEST.pem, LOWEST.key_pem, ROOT_OF_TWO.pem + BETWEEN.pem), NOW)

    assert ca.chain == (LOWEST.certificate, BETWEEN.certificate)
    assert ca.root == ROOT_OF_TWO.certificate


@pytest.mark.parametrize(
    ("text", "says"),
    [
        pytest.param(CaText(SESSION.chain_pem(), SESSION.key_pem()), [], id="our own CA"),
        pytest.param(CaText(ISSUING.pem, ISSUING.key_pem, ROOT.pem), [], id="an intermediate with its root"),
        pytest.param(CaText(ISSUING.pem, ISSUING.key_pem), ["CN=issuing is no root"], id="one without"),
        pytest.param(
            CaText(UNIDENTIFIED.pem, UNIDENTIFIED.key_pem), ["strict clients, such as Python 3.13"], id="no identifiers"
        ),
        pytest.param(
            CaText(KONFLUX.pem, KONFLUX.key_pem),
            ["permitted are *.redhat.com, excluded *, each as it is written"],
            id="constraints with a star",
        ),
    ],
)
def test_what_some_clients_refuse_is_a_doubt(text: CaText, says: list[str]) -> None:
    found = doubts(parse_ca(text, NOW), NOW)

    assert len(found) == len(says)
    assert all(expected in text and ";" in text for expected, text in zip(says, found, strict=True)), found


def encrypted(form: PrivateFormat) -> bytes:
    return ISSUING.key.private_bytes(Encoding.PEM, form, BestAvailableEncryption(b"open sesame"))


def ed25519_key() -> bytes:
    return ed25519.Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def flawed(**flaws: object) -> Callable[[], CaText]:
    def make() -> CaText:
        ca = authority("flawed", **flaws)  # type: ignore[arg-type]
        return CaText(ca.pem, ca.key_pem)

    return make


def below_path_length_zero() -> CaText:
    root = authority("root", path_length=0)
    ca = authority("too deep", root)
    return CaText(ca.pem + root.pem, ca.key_pem)


def outside_of_its_root() -> CaText:
    permitted = x509.DirectoryName(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "another")]))
    root = authority("root", extra=[(x509.NameConstraints([permitted], None), True)])
    ca = authority("issuing", root)
    return CaText(ca.pem + root.pem, ca.key_pem)


def of_another_key_identifier() -> CaText:
    root = authority("root")
    above = x509.AuthorityKeyIdentifier(b"somebody else's key", None, None)
    ca = authority("issuing", root, identified=False, extra=[(above, False)])
    return CaText(ca.pem + root.pem, ca.key_pem)


def below_a_weak_root() -> CaText:
    root = authority("root", key=rsa.generate_private_key(65537, 1024))
    ca = authority("issuing", root)
    return CaText(ca.pem + root.pem, ca.key_pem)


def signed_with_sha1() -> CaText:
    with TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "root.pem").write_bytes(ROOT.pem)
        (folder / "key.pem").write_bytes(ROOT.key_pem)
        (folder / "issuing.pem").write_bytes(authority("issuing", key=ISSUING.key, end=NOW + 9_999 * DAY).pem)
        by = ("-CA", folder / "root.pem", "-CAkey", folder / "key.pem", "-sha1", "-preserve_dates")
        pem = openssl("x509", "-in", folder / "issuing.pem", *by)
    return CaText(pem.encode() + ROOT.pem, ISSUING.key_pem)


def below_expired() -> CaText:
    root = authority("root", end=NOW - DAY / 2)
    ca = authority("issuing", root)
    return CaText(ca.pem + root.pem, ca.key_pem)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        pytest.param(lambda: CaText(b"", ISSUING.key_pem), "ca.pem is empty", id="an empty certificate file"),
        pytest.param(lambda: CaText(b"hello", ISSUING.key_pem), "ca.pem holds no certificate", id="not PEM"),
        pytest.param(
            lambda: CaText(ISSUING.key_pem, ISSUING.key_pem), "ca.pem holds no certificate", id="a key instead"
        ),
        pytest.param(
            lambda: CaText(ISSUING.pem.replace(b"MII", b"AAA"), ISSUING.key_pem), "can't be read", id="broken Base64"
        ),
        pytest.param(lambda: CaText(ISSUING.pem[:200], ISSUING.key_pem), "can't be read", id="a cut-off certificate"),
        pytest.param(lambda: CaText(ISSUING.pem, b" \n"), "ca-key.pem is empty", id="an empty key file"),
        pytest.param(lambda: CaText(ISSUING.pem, ISSUING.pem), "holds no private key", id="a certificate instead"),
        pytest.param(lambda: CaText(ISSUING.pem, b"bogus"), "ca-key.pem holds no private key", id="a bogus key"),
        pytest.param(
            lambda: CaText(ISSUING.pem, encrypted(PrivateFormat.PKCS8)), "ca-key.pem is encrypted", id="encrypted"
        ),
        pytest.param(
            lambda: CaText(ISSUING.pem, encrypted(PrivateFormat.TraditionalOpenSSL)),
            "ca-key.pem is encrypted",
            id="an encrypted traditional key",
        ),
        pytest.param(lambda: CaText(ISSUING.pem, ed25519_key()), "kind that clients", id="an Ed25519 key"),
        pytest.param(
            lambda: CaText(ISSUING.pem, OTHER.key_pem),
            "ca-key.pem does not belong to ca.pem (public keys differ); mount the pair of one session",
            id="the key of another CA",
        ),
        pytest.param(
            lambda: CaText(ROOT.pem + ISSUING.pem, ISSUING.key_pem),
            "belongs to certificate 2 of ca.pem",
            id="a chain from the root down",
        ),
        pytest.param(flawed(end=NOW - DAY / 2), "ca.pem expired at 2026-05-04T00:00:00Z", id="an expired CA"),
        pytest.param(
            flawed(begin=NOW + DAY), "ca.pem is not valid before 2026-05-05T12:00:00Z", id="a CA of tomorrow"
        ),
        pytest.param(flawed(ca=False), "basicConstraints lacks CA:TRUE", id="a leaf in place of a CA"),
        pytest.param(flawed(cert_sign=False), "keyUsage lacks keyCertSign", id="a CA that may not sign certificates"),
        pytest.param(flawed(usage=False), "keyUsage lacks keyCertSign", id="a CA without key usages"),
        pytest.param(
            flawed(key=rsa.generate_private_key(65537, 1024)), "RSA of 2048 bits", id="an RSA key of 1024 bits"
        ),
        pytest.param(
            lambda: CaText(ISSUING.pem + OTHER.pem, ISSUING.key_pem),
            "ca.pem: certificate 2 did not issue certificate 1",
            id="a chain with a stranger in it",
        ),
        pytest.param(
            flawed(extra=[(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), False)]),
            "extendedKeyUsage lacks serverAuth",
            id="a CA for clients' certificates",
        ),
        pytest.param(
            flawed(extra=[(x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05\x00"), True)]),
            "clients refuse what this CA signs: unhandled critical extension",
            id="a critical extension that nobody knows",
        ),
        pytest.param(
            outside_of_its_root,
            "clients refuse what this CA signs: permitted subtree violation",
            id="an intermediate outside of its root's constraints",
        ),
        pytest.param(
            of_another_key_identifier,
            "clients refuse what this CA signs: unable to get local issuer",
            id="an authority key identifier that isn't its root's",
        ),
        pytest.param(below_a_weak_root, "certificate 2 has an RSA key of 1024 bits", id="an RSA root of 1024 bits"),
        pytest.param(signed_with_sha1, "ca.pem: certificate 1 is signed with SHA1", id="signed with SHA-1"),
        pytest.param(below_path_length_zero, "did not issue", id="an intermediate below pathlen 0"),
        pytest.param(below_expired, "ca.pem: certificate 2 expired", id="an expired root in the chain"),
        pytest.param(
            lambda: CaText(ISSUING.pem, ISSUING.key_pem, OTHER.pem),
            "ca.crt did not issue the last certificate of ca.pem",
            id="the ca.crt of another issuer",
        ),
        pytest.param(
            lambda: CaText(ISSUING.pem, ISSUING.key_pem, b"hello"), "ca.crt holds no certificate", id="a bogus ca.crt"
        ),
    ],
)  # fmt: skip
def test_what_clients_would_refuse_is_refused_at_once(make: Callable[[], CaText], says: str) -> None:
    text = make()

    with pytest.raises(SidecarError, match=re.escape(says)) as refused:
        parse_ca(text, NOW)

    assert ";" in str(refused.value), "the message says what to do instead"
    assert refused.value.__suppress_context__ or refused.value.__cause__ is None
    secret = text.key.splitlines()[1:2]
    assert not any(line and line.decode() in str(refused.value) + repr(text) for line in secret)


def test_the_files_are_called_what_the_caller_calls_them() -> None:
    text = CaText(ISSUING.pem, OTHER.key_pem, certificate_name="/mnt/tls.crt", key_name="/mnt/tls.key")

    with pytest.raises(CaError, match=r"^/mnt/tls\.key does not belong to /mnt/tls\.crt"):
        parse_ca(text, NOW)
