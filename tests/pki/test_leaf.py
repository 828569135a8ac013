import os
import ssl
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from sidecar.hosts import parse_host
from sidecar.pki import CaError, CaText, LeafMinter, SessionCa, issue_session_ca, parse_ca
from sidecar.pki.pem import to_pem
from tests.pki.authorities import DAY, NOW, authority, shake_hands, verify_strictly

HOUR = timedelta(hours=1)
LONG_NAME = ".".join(["a" * 60, "b" * 60, "example", "com"])


@pytest.fixture(scope="module")
def ca() -> SessionCa:
    return issue_session_ca(common_name="session-7", now=NOW)


@pytest.fixture(scope="module")
def minter(ca: SessionCa) -> LeafMinter:
    return LeafMinter(ca, lambda: NOW)


def alternative_names(leaf: x509.Certificate) -> x509.Extension[x509.SubjectAlternativeName]:
    return leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName)


@pytest.mark.parametrize(
    ("host", "names"),
    [
        pytest.param("api.example.com", [x509.DNSName("api.example.com")], id="a name is a DNS name"),
        pytest.param("Bücher.example.", [x509.DNSName("xn--bcher-kva.example")], id="a U-label is an A-label"),
        pytest.param("a_b.example.com", [x509.DNSName("a_b.example.com")], id="an underscore is kept"),
        pytest.param("192.0.2.7", [x509.IPAddress(ip_address("192.0.2.7"))], id="an IPv4 address is an address"),
        pytest.param("[2001:db8::7]", [x509.IPAddress(ip_address("2001:db8::7"))], id="an IPv6 address is an address"),
    ],
)
def test_a_leaf_names_what_was_asked_for_and_nothing_else(
    minter: LeafMinter, host: str, names: list[x509.GeneralName]
) -> None:
    leaf = minter.mint(parse_host(host))

    assert list(alternative_names(leaf).value) == names
    assert not alternative_names(leaf).critical
    assert [a.value for a in leaf.subject] == [str(parse_host(host))]


def test_a_name_too_long_for_the_subject_is_a_critical_alternative_name(minter: LeafMinter, tmp_path: Path) -> None:
    leaf = minter.mint(parse_host(LONG_NAME))

    assert list(leaf.subject) == []
    assert alternative_names(leaf).critical
    assert list(alternative_names(leaf).value) == [x509.DNSName(LONG_NAME)]
    verify_strictly(tmp_path, leaf, minter.ca.root, minter.ca.chain, NOW)


def test_a_name_of_64_characters_still_fits_the_subject(minter: LeafMinter) -> None:
    name = "a" * 52 + ".example.com"

    leaf = minter.mint(parse_host(name))

    assert leaf.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value == name


def test_a_leaf_is_a_server_and_no_ca(minter: LeafMinter) -> None:
    leaf = minter.mint(parse_host("example.com"))
    constraints = leaf.extensions.get_extension_for_class(x509.BasicConstraints)
    usage = leaf.extensions.get_extension_for_class(x509.KeyUsage)

    assert constraints.critical
    assert constraints.value == x509.BasicConstraints(ca=False, path_length=None)
    assert usage.critical
    assert usage.value == x509.KeyUsage(True, False, False, False, False, False, False, False, False)
    assert list(leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value) == [
        ExtendedKeyUsageOID.SERVER_AUTH
    ]
    assert leaf.issuer == minter.ca.certificate.subject != leaf.subject


def test_all_leaves_have_one_key_and_it_is_not_the_cas(minter: LeafMinter) -> None:
    one, other = minter.mint(parse_host("a.example")), minter.mint(parse_host("b.example"))

    assert one.public_key() == other.public_key() == minter.key.public_key()
    assert one.public_key() != minter.ca.key.public_key()
    assert one.serial_number != other.serial_number


def test_the_leaves_key_outlives_the_ca(minter: LeafMinter) -> None:
    rotated = LeafMinter(issue_session_ca(common_name="next", now=NOW), lambda: NOW, key=minter.key)

    assert rotated.mint(parse_host("a.example")).public_key() == minter.key.public_key()


def test_the_authority_key_identifier_is_the_one_that_the_ca_has() -> None:
    root = authority("root", identifier=b"not a hash of the key")
    ca = SessionCa(root.key, (root.certificate,), root.certificate)

    leaf = LeafMinter(ca, lambda: NOW).mint(parse_host("example.com"))

    found = leaf.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value
    assert found.key_identifier == b"not a hash of the key"


@pytest.mark.parametrize(
    ("ca_begin", "ca_end", "begin", "end"),
    [
        pytest.param(-DAY, 90 * DAY, -HOUR, 30 * DAY, id="from an hour ago, for 30 days"),
        pytest.param(-HOUR / 2, 90 * DAY, -HOUR / 2, 30 * DAY, id="not before the CA"),
        pytest.param(-DAY, DAY, -HOUR, DAY, id="not after the CA"),
    ],
)
def test_a_leaf_is_valid_within_its_ca(
    ca_begin: timedelta, ca_end: timedelta, begin: timedelta, end: timedelta
) -> None:
    root = authority("root", begin=NOW + ca_begin, end=NOW + ca_end)
    ca = SessionCa(root.key, (root.certificate,), root.certificate)

    leaf = LeafMinter(ca, lambda: NOW).mint(parse_host("example.com"))

    assert (leaf.not_valid_before_utc, leaf.not_valid_after_utc) == (NOW + begin, NOW + end)


def test_a_leaf_ends_with_the_shortest_certificate_above_it() -> None:
    root = authority("root", end=NOW + DAY)
    issuing = authority("issuing", root, end=NOW + 9 * DAY)
    ca = SessionCa(issuing.key, (issuing.certificate,), root.certificate)

    leaf = LeafMinter(ca, lambda: NOW).mint(parse_host("example.com"))

    assert leaf.not_valid_after_utc == NOW + DAY


@pytest.mark.parametrize("late", [pytest.param(25 * HOUR, id="expired"), pytest.param(-2 * HOUR, id="not valid yet")])
def test_a_ca_that_is_not_valid_now_signs_nothing(ca: SessionCa, late: timedelta) -> None:
    with pytest.raises(CaError, match="valid from"):
        LeafMinter(ca, lambda: NOW + late).mint(parse_host("example.com"))


@pytest.mark.parametrize("host", ["example.com", "127.0.0.1", "::1"])
def test_a_strict_client_completes_the_handshake(tmp_path: Path, host: str) -> None:
    ca = issue_session_ca(common_name="s", now=datetime.now(UTC))
    minter = LeafMinter(ca, lambda: datetime.now(UTC))

    shown = handshake(tmp_path, minter, host)

    kind = "DNS" if host == "example.com" else "IP Address"
    assert [entry[0] for entry in shown] == [kind]


def test_a_client_refuses_a_leaf_for_another_name(tmp_path: Path) -> None:
    ca = issue_session_ca(common_name="s", now=datetime.now(UTC))
    minter = LeafMinter(ca, lambda: datetime.now(UTC))

    with pytest.raises(ssl.SSLCertVerificationError, match="mismatch"):
        handshake(tmp_path, minter, "example.com", asked="other.example.com")


def test_a_leaf_below_an_rsa_intermediate_is_served_with_its_chain(tmp_path: Path) -> None:
    now = datetime.now(UTC)
    root = authority("root", begin=now - DAY, end=now + DAY, path_length=1)
    issuing = authority(
        "issuing", root, key=rsa.generate_private_key(65537, 2048), begin=now - DAY, end=now + DAY, path_length=0
    )
    ca = parse_ca(CaText(certificate=issuing.pem, key=issuing.key_pem, roots=root.pem), now)
    minter = LeafMinter(ca, lambda: now)

    handshake(tmp_path, minter, "example.com")

    verify_strictly(tmp_path, minter.mint(parse_host("example.com")), ca.root, ca.chain, now)


SCRIPT = """
import sys
from datetime import UTC, datetime
from pathlib import Path
from sidecar.hosts import parse_host
from sidecar.pki import LeafMinter, issue_session_ca
from sidecar.pki.pem import to_pem
ca = issue_session_ca(common_name="s", now=datetime.now().astimezone())
leaf = LeafMinter(ca, lambda: datetime.now().astimezone()).mint(parse_host("example.com"))
Path(sys.argv[1]).write_bytes(to_pem([leaf]) + ca.chain_pem())
"""


@pytest.mark.parametrize("zone", ["UTC", "Asia/Tokyo", "America/Los_Angeles"])
def test_the_local_time_zone_moves_no_date(tmp_path: Path, zone: str) -> None:
    pem = tmp_path / "served.pem"
    before = datetime.now(UTC).replace(microsecond=0)

    subprocess.run([sys.executable, "-c", SCRIPT, str(pem)], env=os.environ | {"TZ": zone}, check=True, timeout=60)

    leaf, root = x509.load_pem_x509_certificates(pem.read_bytes())
    assert before - HOUR <= leaf.not_valid_before_utc <= datetime.now(UTC) - HOUR
    assert leaf.not_valid_after_utc == root.not_valid_after_utc >= before + 25 * HOUR
    verify_strictly(tmp_path, leaf, root, (), datetime.now(UTC))


def handshake(folder: Path, minter: LeafMinter, host: str, asked: str | None = None) -> list[tuple[str, str]]:
    served = folder / "served.pem"
    served.write_bytes(
        to_pem([minter.mint(parse_host(host))])
        + minter.ca.chain_pem()
        + minter.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    )
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(served)
    client = ssl.create_default_context(cadata=minter.ca.root_pem().decode())
    client.verify_flags |= ssl.VERIFY_X509_STRICT
    client.verify_flags &= ~ssl.VERIFY_X509_PARTIAL_CHAIN
    names = shake_hands(server, client, asked or host)["subjectAltName"]
    return list(names)  # type: ignore[call-overload, no-any-return]
