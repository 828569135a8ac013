"""Java's trust stores, as Java's own tool and OpenSSL read them."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import pkcs12 as library
from cryptography.x509.oid import NameOID

from sidecar.pki import issue_session_ca
from sidecar.pki.pem import certificates_in
from sidecar.trust import TrustError, public_roots
from sidecar.trust.keystore import PASSWORD, aliases, checked_password, jks, pkcs12
from tests.pki.authorities import NOW
from tests.trust.roots import der, root, tool

CA = issue_session_ca(common_name="session-7", now=NOW).root
FEW = [*public_roots()[:3], CA]
MAKERS = [pytest.param(pkcs12, "PKCS12", id="PKCS#12"), pytest.param(jks, "JKS", id="JKS")]

type Maker = Callable[..., bytes]


def named(*names: str) -> list[x509.Certificate]:
    return [root(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])) for name in names]


def keytool(store: Path, *options: str, kind: str) -> str:
    return tool("keytool", "-list", "-rfc", "-keystore", store, "-storetype", kind, *options, LC_ALL="C")


@pytest.mark.parametrize(("make", "kind"), MAKERS)
@pytest.mark.parametrize(
    ("password", "options"),
    [
        pytest.param(PASSWORD, ["-storepass", "changeit"], id="the usual password"),
        pytest.param(PASSWORD, [], id="no password asked of a store that has one"),
        pytest.param("s3cret-!", ["-storepass", "s3cret-!"], id="another password"),
        pytest.param(None, [], id="no password"),
    ],
)
def test_keytool_lists_everybody(
    tmp_path: Path, make: Maker, kind: str, password: str | None, options: list[str]
) -> None:
    everybody = [*public_roots(), CA]
    (tmp_path / "store").write_bytes(make(everybody, password))

    said = keytool(tmp_path / "store", *options, kind=kind)

    assert f"contains {len(everybody)} entries" in said
    assert said.count("Entry type: trustedCertEntry") == len(everybody)
    assert set(map(der, certificates_in(said.encode(), "keytool"))) == set(map(der, everybody))


@pytest.mark.parametrize(("make", "kind"), MAKERS)
def test_a_wrong_password_and_a_damaged_store_are_noticed(tmp_path: Path, make: Maker, kind: str) -> None:
    content = bytearray(make(FEW))
    (tmp_path / "store").write_bytes(content)
    content[len(content) // 2] ^= 1
    (tmp_path / "damaged").write_bytes(content)

    with pytest.raises(AssertionError, match=r"password was incorrect|Integrity check failed"):
        keytool(tmp_path / "store", "-storepass", "changeme", kind=kind)
    with pytest.raises(AssertionError, match="Exception"):
        keytool(tmp_path / "damaged", "-storepass", PASSWORD, kind=kind)


@pytest.mark.parametrize("password", [PASSWORD, None])
@pytest.mark.parametrize(("make", "kind"), MAKERS)
def test_same_input_same_bytes(make: Maker, kind: str, password: str | None) -> None:
    assert make(FEW, password) == make([*FEW, FEW[0]], password)


def test_openssl_reads_the_pkcs12_store(tmp_path: Path) -> None:
    (tmp_path / "store").write_bytes(pkcs12(FEW))

    said = tool("openssl", "pkcs12", "-nokeys", "-passin", f"pass:{PASSWORD}", "-in", tmp_path / "store")

    assert set(map(der, certificates_in(said.encode(), "openssl"))) == set(map(der, FEW))
    assert re.findall(r"friendlyName: (.+)", said) == [alias for alias, _ in aliases(FEW)]


def test_the_library_that_made_it_reads_the_pkcs12_store_with_our_checksum() -> None:
    read = library.load_pkcs12(pkcs12(FEW, "another-one"), b"another-one")

    assert [one.certificate for one in read.additional_certs] == FEW
    with pytest.raises(ValueError, match="password"):
        library.load_pkcs12(pkcs12(FEW, "another-one"), b"changeit")


def test_aliases_are_readable_and_lead_back_to_the_certificate() -> None:
    fingerprint = CA.fingerprint(hashes.SHA256()).hex()

    assert dict(aliases([CA])) == {f"session-7-{fingerprint[:8]}": CA}


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("Főtanúsítvány Kft.", "fotanusitvany-kft"),
        ("UPPER Case", "upper-case"),
        ("認証局", "certificate"),
        ("-- \n --", "certificate"),
        ("x" * 64, "x" * 48),
    ],
)
def test_an_alias_is_plain_and_in_lower_case(name: str, label: str) -> None:
    ((alias, _),) = aliases(named(name))

    assert re.fullmatch(rf"{label}-[0-9a-f]{{8}}", alias)


def test_no_two_have_one_alias_though_all_have_one_name(tmp_path: Path) -> None:
    twins = named("Twin", "twin", "TWIN")
    (tmp_path / "store").write_bytes(jks(twins))

    assert len({alias for alias, _ in aliases(twins)}) == 3
    assert "contains 3 entries" in keytool(tmp_path / "store", kind="JKS")


def test_where_the_short_forms_are_equal_the_alias_is_longer() -> None:
    first, second = named("Twin", "Twin")
    digests = {der(first): "00" * 32, der(second): "00" * 4 + "11" * 28}
    found = aliases([_Fingerprinted(one, digests[der(one)]) for one in (first, second)])  # type: ignore[misc]

    assert [alias for alias, _ in found] == ["twin-00000000", f"twin-{digests[der(second)]}"]


class _Fingerprinted:
    """A certificate with a fingerprint of our choice: nobody finds two that begin alike in a test's time."""

    def __init__(self, certificate: x509.Certificate, digest: str) -> None:
        self._certificate, self._digest = certificate, digest

    def fingerprint(self, _: hashes.HashAlgorithm) -> bytes:
        return bytes.fromhex(self._digest)

    def __getattr__(self, name: str) -> object:
        return getattr(self._certificate, name)


@pytest.mark.parametrize(
    "password", ["", "short", "with a space", 'quo"te', "it's", "back\\slash", "umläute", "x" * 129]
)
def test_a_password_that_a_command_line_would_change_is_refused(password: str) -> None:
    with pytest.raises(TrustError, match="6 to 128 characters"):
        checked_password(password)
