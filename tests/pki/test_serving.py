from dataclasses import replace
from datetime import datetime, timedelta
from ipaddress import ip_network
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from sidecar.hosts import parse_host
from sidecar.pki import CaError, SessionCa, issue_session_ca
from sidecar.pki.held import names_in
from sidecar.pki.pem import to_pem
from sidecar.pki.serving import KeyType, ServingError, Usage, Wish, issue_serving
from sidecar.pki.session_ca import key_usage
from tests.pki.authorities import DAY, NOW, Authority, authority, openssl, verify_strictly

HOUR = timedelta(hours=1)
NAMES = ("web.agents.svc", "10.1.2.3", "2001:db8::3", "web")


def wish(*names: str) -> Wish:
    return Wish(hosts=tuple(parse_host(name) for name in names or NAMES))


@pytest.fixture
def ca() -> SessionCa:
    return issue_session_ca(common_name="session-7", now=NOW, validity=365 * DAY)


def two_tier(*extensions: x509.ExtensionType, end: datetime = NOW + 365 * DAY) -> SessionCa:
    """An intermediate with these extensions under a root without."""
    root = authority("root", path_length=1, end=NOW + 3650 * DAY)
    key = ec.generate_private_key(ec.SECP256R1())
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "intermediate")]))
        .issuer_name(root.certificate.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW - DAY)
        .not_valid_after(end)
        .add_extension(x509.BasicConstraints(True, 0), critical=True)
        .add_extension(key_usage(digital_signature=False, key_cert_sign=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(root.certificate.public_key()),  # type: ignore[arg-type]
            critical=False,
        )
    )
    for extension in extensions:
        builder = builder.add_extension(extension, critical=isinstance(extension, x509.NameConstraints))
    made = Authority(key, builder.sign(root.key, hashes.SHA256()))
    return SessionCa(key, (made.certificate,), root.certificate)


def test_every_name_and_address_is_in_the_certificate_and_the_first_is_its_common_name(ca: SessionCa) -> None:
    certificate = issue_serving(ca, wish(), NOW).certificate

    assert names_in(certificate) == set(NAMES)
    assert certificate.subject.rfc4514_string() == "CN=web.agents.svc"


def test_a_first_name_that_does_not_fit_leaves_the_common_name_to_the_next(ca: SessionCa) -> None:
    long = f"{'a' * 60}.agents.svc.cluster.local"

    assert issue_serving(ca, wish(long, "web"), NOW).certificate.subject.rfc4514_string() == "CN=web"
    alone = issue_serving(ca, wish(long), NOW).certificate
    assert alone.subject.rfc4514_string() == ""
    assert alone.extensions.get_extension_for_class(x509.SubjectAlternativeName).critical


@pytest.mark.parametrize("key_type", KeyType)
@pytest.mark.parametrize("tiers", [1, 2])
def test_openssl_accepts_it_in_its_strictest_mode_as_server_and_as_client(
    tmp_path: Path, ca: SessionCa, key_type: KeyType, tiers: int
) -> None:
    ca = ca if tiers == 1 else two_tier()

    serving = issue_serving(ca, replace(wish(), key_type=key_type), NOW)

    verify_strictly(tmp_path, serving.certificate, ca.root, serving.chain, NOW)
    at, chain = str(int(NOW.timestamp())), tmp_path / "chain.pem"
    for checked in (["-verify_hostname", "web"], ["-verify_ip", "10.1.2.3"], ["-verify_ip", "2001:db8::3"]):
        for purpose in ("sslserver", "sslclient"):
            openssl(
                "verify", "-x509_strict", "-no-CApath", "-attime", at, "-purpose", purpose, *checked,
                "-CAfile", tmp_path / "root.pem", "-untrusted", chain, tmp_path / "leaf.pem",
            )  # fmt: skip


def test_the_chain_has_the_root_only_if_it_signs(ca: SessionCa) -> None:
    above = two_tier()

    assert issue_serving(ca, wish(), NOW).certificate_pem().endswith(to_pem([ca.root]))
    assert issue_serving(above, wish(), NOW).chain == above.chain
    assert above.root not in above.chain


@pytest.mark.parametrize(
    ("usage", "purposes"),
    [
        (Usage.SERVER, {ExtendedKeyUsageOID.SERVER_AUTH}),
        (Usage.CLIENT, {ExtendedKeyUsageOID.CLIENT_AUTH}),
        (Usage.BOTH, {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH}),
    ],
)
def test_it_is_for_what_was_asked(ca: SessionCa, usage: Usage, purposes: set[x509.ObjectIdentifier]) -> None:
    certificate = issue_serving(ca, replace(wish(), usage=usage), NOW).certificate

    assert set(certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value) == purposes


def test_keys_are_new_and_of_the_kind_asked_for(ca: SessionCa) -> None:
    one, other = (issue_serving(ca, wish(), NOW) for _ in range(2))
    heavy = issue_serving(ca, replace(wish(), key_type=KeyType.RSA2048), NOW).key

    assert isinstance(one.key, ec.EllipticCurvePrivateKey)
    assert isinstance(one.key.curve, ec.SECP256R1)
    assert isinstance(heavy, rsa.RSAPrivateKey)
    assert heavy.key_size == 2048
    assert len({key.private_numbers() for key in (one.key, other.key, ca.key)}) == 3


def test_ninety_days_from_an_hour_ago_within_the_ca(ca: SessionCa) -> None:
    def times(ca: SessionCa, now: datetime = NOW) -> tuple[datetime, datetime]:
        made = issue_serving(ca, wish(), now).certificate
        return made.not_valid_before_utc, made.not_valid_after_utc

    short = issue_session_ca(common_name="s", now=NOW, validity=24 * HOUR, skew=timedelta(0))
    assert times(ca) == (NOW - HOUR, NOW + 90 * DAY)
    assert times(short) == (NOW, NOW + 24 * HOUR)
    assert times(two_tier(end=NOW + 5 * DAY)) == (NOW - HOUR, NOW + 5 * DAY)


def test_an_expired_ca_issues_nothing(ca: SessionCa) -> None:
    with pytest.raises(CaError, match="'session-7' is valid from"):
        issue_serving(ca, wish(), NOW + 400 * DAY)


DNS, IP = x509.DNSName, x509.IPAddress


@pytest.mark.parametrize(
    ("permitted", "excluded", "names"),
    [
        pytest.param([DNS("svc"), IP(ip_network("10.0.0.0/8"))], None, "web.agents.svc 10.1.2.3", id="inside"),
        pytest.param([DNS("agents.svc")], None, "web.agents.svc 10.1.2.3", id="addresses aren't constrained by names"),
        pytest.param([DNS("agents.svc")], None, "agents.svc", id="a subtree has its own name"),
        pytest.param(None, [DNS("other.svc")], "web.agents.svc", id="not excluded"),
    ],
)
def test_what_the_constraints_permit_is_issued_and_openssl_agrees(
    tmp_path: Path, permitted: list[x509.GeneralName], excluded: list[x509.GeneralName], names: str
) -> None:
    ca = two_tier(x509.NameConstraints(permitted, excluded))

    serving = issue_serving(ca, wish(*names.split()), NOW)

    verify_strictly(tmp_path, serving.certificate, ca.root, serving.chain, NOW)


@pytest.mark.parametrize(
    ("permitted", "excluded", "names", "says"),
    [
        pytest.param(
            [DNS("agents.svc")], None, "web", "'web' can't be certified: .* permit only agents.svc", id="another name"
        ),
        pytest.param([DNS("agents.svc")], None, "notagents.svc", "'notagents.svc'", id="a name that ends alike"),
        pytest.param([DNS("a.svc"), IP(ip_network("10.0.0.0/8"))], None, "w.a.svc 192.0.2.1", "'192.0.2.1'", id="IPv4"),
        pytest.param([IP(ip_network("10.0.0.0/8"))], None, "fd00::1", "'fd00::1'", id="the other family"),
        pytest.param(
            None,
            [DNS("svc")],
            "web.agents.svc",
            "'web.agents.svc' can't be certified: .* exclude svc",
            id="an excluded name",
        ),
        pytest.param(
            None,
            [IP(ip_network("0.0.0.0/0"))],
            "10.1.2.3",
            "'10.1.2.3' can't be certified: .* exclude 0.0.0.0/0",
            id="all of IPv4",
        ),
    ],
)
def test_what_the_constraints_leave_no_room_for_is_an_error_that_names_it(
    permitted: list[x509.GeneralName], excluded: list[x509.GeneralName], names: str, says: str
) -> None:
    ca = two_tier(x509.NameConstraints(permitted, excluded))

    with pytest.raises(ServingError, match=says):
        issue_serving(ca, wish(*names.split()), NOW)


def test_a_ca_for_servers_alone_certifies_no_clients() -> None:
    ca = two_tier(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]))

    issue_serving(ca, replace(wish(), usage=Usage.SERVER), NOW)
    with pytest.raises(ServingError, match=r"'intermediate' may not certify for TLS client use.*--usage"):
        issue_serving(ca, wish(), NOW)
