"""What is refused although OpenSSL verifies it."""

from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtensionOID

from sidecar.pki.strict import objection

KEY = ec.generate_private_key(ec.SECP256R1())
NOW = datetime(2026, 1, 1, tzinfo=UTC)


def certificate(*extensions: x509.ExtensionType) -> x509.Certificate:
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([]))
        .issuer_name(x509.Name([]))
        .public_key(KEY.public_key())
        .serial_number(1)
        .not_valid_before(NOW)
        .not_valid_after(NOW + timedelta(days=1))
    )
    for extension in extensions:
        builder = builder.add_extension(extension, critical=False)
    return builder.sign(KEY, hashes.SHA256())


def names(*dns: str) -> x509.SubjectAlternativeName:
    return x509.SubjectAlternativeName([x509.DNSName(name) for name in dns])


def excluding(*dns: str) -> x509.Certificate:
    return certificate(x509.NameConstraints(None, [x509.DNSName(name) for name in dns]))


@pytest.mark.parametrize(
    ("san", "excluded", "refused"),
    [
        pytest.param("*.example.com", "secret.example.com", True, id="a wildcard reaches an excluded name below it"),
        pytest.param("*.example.com", "a.b.example.com", True, id="however deep the excluded subtree lies"),
        pytest.param("*.example.com", ".example.com", True, id="an excluded subtree with a leading dot"),
        pytest.param("*.a.example.com", "example.com", True, id="a wildcard inside of an excluded subtree"),
        pytest.param("*.EXAMPLE.com", "secret.example.COM", True, id="in any case"),
        pytest.param("*.example.com", "example.org", False, id="another domain's exclusion"),
        pytest.param("*.example.com", "notexample.com", False, id="a suffix that isn't a label"),
        pytest.param(
            "www.example.com", "secret.example.com", False, id="a name without wildcard is OpenSSL's business"
        ),
    ],
)
def test_a_wildcard_may_not_reach_into_what_is_excluded(san: str, excluded: str, refused: bool) -> None:
    assert (objection([certificate(names(san)), excluding(excluded)]) is not None) is refused


def test_any_issuer_of_the_chain_may_exclude() -> None:
    chain = [certificate(names("*.example.com")), certificate(), excluding("secret.example.com")]

    assert "secret.example.com" in (objection(chain) or "")


def test_an_extension_that_can_not_be_parsed_is_refused() -> None:
    garbage = x509.UnrecognizedExtension(ExtensionOID.AUTHORITY_INFORMATION_ACCESS, b"\x30\x03\x02\x01")

    assert "can't be parsed" in (objection([certificate(garbage)]) or "")
