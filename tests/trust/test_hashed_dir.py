"""The hashed directory has the names that OpenSSL's own tools give, and OpenSSL finds everybody in it."""

from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.name import _ASN1Type
from cryptography.x509.oid import NameOID

from sidecar.pki.pem import certificates_in, to_pem
from sidecar.trust import public_roots
from sidecar.trust.hashed_dir import HASHED_NAME, hashed_directory
from tests.pki.authorities import DAY, NOW, Authority, authority
from tests.trust.roots import der, root, tool, write


def attribute(
    text: str, kind: _ASN1Type = _ASN1Type.UTF8String, oid: x509.ObjectIdentifier = NameOID.COMMON_NAME
) -> x509.NameAttribute[str]:
    return x509.NameAttribute(oid, text, kind)


def rdns(*attributes: x509.NameAttribute[str]) -> x509.Name:
    return x509.Name([x509.RelativeDistinguishedName([one]) for one in attributes])


ODD = {
    "umlauts": rdns(attribute("Prüfstelle Főtanúsítvány")),
    "another alphabet": rdns(attribute("Удостоверяющий центр 認証局 🔏")),
    "no common name": rdns(attribute("Organization alone", oid=NameOID.ORGANIZATION_NAME)),
    "nothing at all": x509.Name([]),
    "spaces at both ends and two inside": rdns(attribute("  Spaced   out  ")),
    "a slash, an equals sign and a line break": rdns(attribute("a/CN=b\nc, d+e")),
    "two attributes in one": x509.Name(
        [x509.RelativeDistinguishedName([attribute("m"), attribute("u", oid=NameOID.ORGANIZATIONAL_UNIT_NAME)])]
    ),
    "printable string": rdns(attribute("Printable", _ASN1Type.PrintableString)),
    "sixteen bits for each character": rdns(attribute("BMP Ω", _ASN1Type.BMPString)),
    "T.61": rdns(attribute("Teletex", _ASN1Type.T61String)),
    "numeric": rdns(attribute("123", _ASN1Type.NumericString)),
    "mail address": rdns(attribute("a@b.test", _ASN1Type.IA5String, NameOID.EMAIL_ADDRESS), attribute("x")),
    "long": rdns(attribute("long " * 12)),
}  # fmt: skip
SAME = [root(rdns(attribute(text))) for text in ("Twice", "Twice", "tWICE", " twice  ")]  # one canonical form


def rehashed(folder: Path, certificates: list[x509.Certificate], *command: str) -> dict[str, set[bytes]]:
    """The directory as the tool leaves it: each hash, and who has it."""
    folder.mkdir()
    write(folder, {f"{number}.pem": to_pem([one]) for number, one in enumerate(certificates)})
    tool(*command, folder)
    return by_hash({path.name: path.read_bytes() for path in folder.iterdir() if path.is_symlink()})


def by_hash(files: dict[str, bytes]) -> dict[str, set[bytes]]:
    found: dict[str, set[bytes]] = {}
    for name in sorted(files):
        if HASHED_NAME.match(name):
            (certificate,) = certificates_in(files[name], name)
            hashed, _, number = name.partition(".")
            found.setdefault(hashed, set())
            assert int(number) == len(found[hashed]), "numbers have no gap"
            found[hashed].add(der(certificate))
    return found


def test_names_are_those_of_openssl_rehash(tmp_path: Path) -> None:
    certificates = [*public_roots(), *map(root, ODD.values()), *SAME]

    ours = by_hash(hashed_directory(certificates))

    assert ours == rehashed(tmp_path / "theirs", certificates, "openssl", "rehash")
    assert max(map(len, ours.values())) == len(SAME)


def test_names_are_those_of_c_rehash_which_adds_the_hashes_of_openssl_0_9(tmp_path: Path) -> None:
    certificates = [*map(root, ODD.values()), *SAME]

    ours = by_hash(hashed_directory(certificates))

    theirs = rehashed(tmp_path / "theirs", certificates, "c_rehash")
    assert {name: theirs.get(name) for name in ours} == ours


@pytest.mark.parametrize("subject", ODD.values(), ids=ODD.keys())
def test_an_odd_subject_has_openssl_s_hash(tmp_path: Path, subject: x509.Name) -> None:
    (tmp_path / "root.pem").write_bytes(to_pem([root(subject)]))

    hashed = tool("openssl", "x509", "-noout", "-subject_hash", "-in", tmp_path / "root.pem").strip()

    assert set(hashed_directory([root(subject)])) == {"ca-certificates.crt", f"{hashed}.0"}


def test_openssl_finds_the_right_one_among_those_of_one_name(tmp_path: Path) -> None:
    twins = [authority("Twice") for _ in range(3)]
    write(tmp_path, hashed_directory(twin.certificate for twin in twins))

    for number, twin in enumerate(twins):
        leaf = tmp_path / f"leaf-{number}.pem"
        leaf.write_bytes(leaf_below(twin).pem)
        when = str(int(NOW.timestamp()))
        tool("openssl", "verify", "-attime", when, "-no-CAfile", "-no-CAstore", "-CApath", tmp_path, leaf)


def leaf_below(parent: Authority) -> Authority:
    return authority("leaf.test", parent, ca=False, usage=False, end=NOW + DAY)


def test_for_one_ca_alone_there_are_two_files() -> None:
    one = root(rdns(attribute("only")))
    files = hashed_directory([one])

    assert len(files) == 2
    assert certificates_in(files["ca-certificates.crt"], "bundle") == (one,)


def test_same_input_same_bytes_and_nobody_twice() -> None:
    assert hashed_directory(SAME) == hashed_directory([*SAME, *SAME])
    assert [name[-2:] for name in hashed_directory(SAME)][1:] == [".0", ".1", ".2", ".3"]
