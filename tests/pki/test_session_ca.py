from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from sidecar.pki import CaError, SessionCa, issue_session_ca
from tests.pki.authorities import NOW, openssl

HOUR = timedelta(hours=1)


@pytest.fixture(scope="module")
def ca() -> SessionCa:
    return issue_session_ca(common_name="session-7", now=NOW)


def extension[E: x509.ExtensionType](certificate: x509.Certificate, kind: type[E]) -> x509.Extension[E]:
    return certificate.extensions.get_extension_for_class(kind)


def test_the_subject_is_the_session_and_the_organization(ca: SessionCa) -> None:
    subject = {a.oid: a.value for a in ca.certificate.subject}

    assert subject == {NameOID.COMMON_NAME: "session-7", NameOID.ORGANIZATION_NAME: "Egress Sidecar"}
    assert ca.certificate.issuer == ca.certificate.subject
    assert ca.common_name == "session-7"


def test_it_is_p256_with_sha256(ca: SessionCa) -> None:
    assert isinstance(ca.key, ec.EllipticCurvePrivateKey)
    assert isinstance(ca.key.curve, ec.SECP256R1)
    assert isinstance(ca.certificate.signature_hash_algorithm, hashes.SHA256)
    assert ca.certificate.public_key() == ca.key.public_key()


def test_it_may_sign_leaves_and_never_another_ca(ca: SessionCa) -> None:
    constraints = extension(ca.certificate, x509.BasicConstraints)

    assert constraints.critical
    assert constraints.value == x509.BasicConstraints(ca=True, path_length=0)


def test_its_key_usages_are_signature_certificates_and_revocation_lists(ca: SessionCa) -> None:
    usage = extension(ca.certificate, x509.KeyUsage)

    assert usage.critical
    assert usage.value == x509.KeyUsage(True, False, False, False, False, True, True, False, False)


def test_its_authority_key_identifier_is_its_own(ca: SessionCa) -> None:
    own = extension(ca.certificate, x509.SubjectKeyIdentifier).value
    authority = extension(ca.certificate, x509.AuthorityKeyIdentifier).value

    assert authority.key_identifier == own.digest


def test_it_is_valid_for_24_hours_and_an_hour_of_skew_on_both_ends(ca: SessionCa) -> None:
    assert (ca.not_before, ca.not_after) == (NOW - HOUR, NOW + 25 * HOUR)


def test_validity_skew_organization_and_path_length_are_options() -> None:
    ca = issue_session_ca(
        common_name="s", now=NOW, validity=2 * HOUR, skew=timedelta(0), organization="Acme", path_length=None
    )

    assert (ca.not_before, ca.not_after) == (NOW, NOW + 2 * HOUR)
    assert ca.certificate.subject.rfc4514_string() == "CN=s,O=Acme"
    assert extension(ca.certificate, x509.BasicConstraints).value.path_length is None


def test_a_clock_in_another_zone_is_the_same_clock() -> None:
    tokyo = NOW.astimezone(timezone(9 * HOUR))

    assert issue_session_ca(common_name="s", now=tokyo).not_before == NOW - HOUR


def test_two_calls_give_two_keys_and_two_serials(ca: SessionCa) -> None:
    other = issue_session_ca(common_name="session-7", now=NOW)

    assert other.key_pem() != ca.key_pem()
    assert other.certificate.serial_number != ca.certificate.serial_number
    assert 0 < other.certificate.serial_number < 1 << 159


def test_its_pem_is_one_certificate_and_a_pkcs8_key(ca: SessionCa) -> None:
    assert ca.chain_pem() == ca.root_pem()
    assert ca.chain_pem().startswith(b"-----BEGIN CERTIFICATE-----\n")
    assert ca.key_pem().startswith(b"-----BEGIN PRIVATE KEY-----\n")
    assert b"KEY" not in ca.chain_pem()


def test_its_repr_does_not_show_the_key(ca: SessionCa) -> None:
    assert "key" not in repr(ca).lower()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        pytest.param({"common_name": ""}, "common name", id="an empty common name is refused"),
        pytest.param({"common_name": "  "}, "common name", id="a blank common name is refused"),
        pytest.param({"common_name": "s" * 65}, "common name", id="a common name of 65 characters is refused"),
        pytest.param({"common_name": "é" * 33}, "common name", id="the limit is in bytes"),
        pytest.param({"common_name": "a\nb"}, "common name", id="a common name is one line"),
        pytest.param({"common_name": "\udc80"}, "common name", id="a common name is text"),
        pytest.param({"organization": ""}, "organization", id="an empty organization is refused"),
        pytest.param({"validity": timedelta(0)}, "validity", id="a validity of zero is refused"),
        pytest.param({"validity": -HOUR}, "validity", id="a negative validity is refused"),
        pytest.param({"skew": -HOUR}, "skew", id="a negative skew is refused"),
        pytest.param({"validity": timedelta(days=3_000_000)}, "shorter", id="a validity past the year 9999 is refused"),
        pytest.param({"skew": timedelta(days=40_000)}, "shorter", id="a skew from before 1950 is refused"),
        pytest.param({"path_length": -1}, "path length", id="a negative path length is refused"),
    ],
)
def test_what_does_not_fit_is_refused(arguments: dict[str, object], says: str) -> None:
    with pytest.raises(CaError, match=says):
        issue_session_ca(**{"common_name": "s", "now": NOW} | arguments)  # type: ignore[arg-type]


def test_a_naive_clock_is_a_bug() -> None:
    with pytest.raises(ValueError, match="aware"):
        issue_session_ca(common_name="s", now=NOW.replace(tzinfo=None))


def test_openssl_accepts_it_strictly(tmp_path: Path) -> None:
    ca = issue_session_ca(common_name="s", now=datetime.now(UTC))
    (tmp_path / "ca.pem").write_bytes(ca.chain_pem())
    (tmp_path / "key.pem").write_bytes(ca.key_pem())

    openssl("verify", "-x509_strict", "-check_ss_sig", "-CAfile", tmp_path / "ca.pem", tmp_path / "ca.pem")
    assert "ASN1 OID: prime256v1" in openssl("pkey", "-in", tmp_path / "key.pem", "-noout", "-text_pub")
