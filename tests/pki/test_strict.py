"""What is refused although OpenSSL verifies it."""

from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtensionOID

from sidecar.pki.strict import objections
from sidecar.policy.upstreams import Accept

KEY = ec.generate_private_key(ec.SECP256R1())
NOW = datetime(2026, 1, 1, tzinfo=UTC)


def certificate(*extensions: x509.ExtensionType, days: int = 1) -> x509.Certificate:
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([]))
        .issuer_name(x509.Name([]))
        .public_key(KEY.public_key())
        .serial_number(1)
        .not_valid_before(NOW)
        .not_valid_after(NOW + timedelta(days=days))
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
    assert (list(objections([certificate(names(san)), excluding(excluded)])) != []) is refused


def test_any_issuer_of_the_chain_may_exclude() -> None:
    chain = [certificate(names("*.example.com")), certificate(), excluding("secret.example.com")]

    (found,) = objections(chain)
    assert "secret.example.com" in found.words
    assert found.accept is None


def test_an_extension_that_can_not_be_parsed_is_refused() -> None:
    garbage = x509.UnrecognizedExtension(ExtensionOID.AUTHORITY_INFORMATION_ACCESS, b"\x30\x03\x02\x01")

    (found,) = objections([certificate(garbage)])
    assert "can't be parsed" in found.words
    assert found.accept is None


def test_a_ca_certificate_is_refused_as_a_leaf_unless_accepted() -> None:
    (found,) = objections([certificate(x509.BasicConstraints(ca=True, path_length=None))])

    assert found.accept is Accept.CA_LEAF


@pytest.mark.parametrize(("days", "refused"), [(3649, False), (3650, True), (36500, True)])
def test_a_leaf_of_ten_years_is_refused_unless_accepted(days: int, refused: bool) -> None:
    found = [objection.accept for objection in objections([certificate(days=days)])]

    assert found == ([Accept.LONG_LIVED] if refused else [])


def test_a_long_lived_issuer_is_no_objection() -> None:
    assert list(objections([certificate(), certificate(x509.BasicConstraints(True, None), days=36500)])) == []


def test_what_can_not_be_accepted_is_said_first() -> None:
    chain = [
        certificate(names("*.example.com"), x509.BasicConstraints(True, None), days=36500),
        excluding("example.com"),
    ]

    assert [objection.accept for objection in objections(chain)] == [None, Accept.CA_LEAF, Accept.LONG_LIVED]
