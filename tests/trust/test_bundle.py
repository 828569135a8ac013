import re
from pathlib import PurePosixPath

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.pki import SessionCa, issue_session_ca
from sidecar.pki.pem import PemError, certificates_in, to_pem
from sidecar.trust import Anchors, public_roots, trust_bundle, trust_files
from tests.pki.authorities import NOW, authority

CA = issue_session_ca(common_name="session-7", now=NOW)
AUTHORITIES = [authority(name) for name in ("one", "two", "a\nb", "-----BEGIN PRIVATE KEY-----", "Főtanúsítvány")]
MOUNT = PurePosixPath("/etc/egress/trust")


def made(ca: SessionCa = CA, *public: x509.Certificate) -> dict[str, bytes]:
    return trust_files(Anchors(session=(ca.root,), public=public), MOUNT)


def ders(pem: bytes) -> list[bytes]:
    return [certificate.public_bytes(Encoding.DER) for certificate in certificates_in(pem, "bundle.pem")]


def test_the_bundle_is_the_public_roots_and_the_session_ca_each_once() -> None:
    bundle = made(CA, *public_roots())["bundle.pem"]

    expected = {certificate.public_bytes(Encoding.DER) for certificate in (*public_roots(), CA.root)}
    assert len(expected) > 100
    assert len(ders(bundle)) == len(expected)
    assert set(ders(bundle)) == expected


def test_same_input_same_bytes() -> None:
    assert made(CA, *public_roots()) == made(CA, *public_roots())


def test_ca_pem_is_the_session_ca_alone() -> None:
    assert made(CA, *public_roots())["ca.pem"] == CA.root_pem()


def test_below_an_intermediate_the_root_is_trusted() -> None:
    root = authority("root")
    issuing = authority("issuing", root)
    files = made(SessionCa(issuing.key, (issuing.certificate,), root.certificate))

    assert ders(files["ca.pem"]) == ders(files["bundle.pem"]) == ders(root.pem)


def test_other_roots_take_the_place_of_the_public_ones() -> None:
    bundle = made(CA, AUTHORITIES[0].certificate, CA.root)["bundle.pem"]

    assert ders(bundle) == ders(AUTHORITIES[0].pem + CA.root_pem())


def test_no_file_holds_a_key() -> None:
    assert not any(b"PRIVATE KEY" in data for data in made(CA, *public_roots()).values())


def test_a_comment_names_each_subject() -> None:
    assert trust_bundle([CA.root]).startswith(b"# CN=session-7,O=Egress Sidecar\n-----BEGIN CERTIFICATE-----\n")


def test_a_subject_can_neither_end_its_comment_nor_start_a_block() -> None:
    bundle = trust_bundle(a.certificate for a in AUTHORITIES)

    assert bundle.isascii()
    assert b"-----BEGIN PRIVATE" not in bundle
    assert rb"# CN=a\nb" in bundle
    assert len(re.findall(rb"^#", bundle, re.MULTILINE)) == len(AUTHORITIES)


def test_while_the_ca_is_exchanged_both_are_trusted_everywhere() -> None:
    old = issue_session_ca(common_name="session-6", now=NOW)
    files = trust_files(Anchors(session=(old.root, CA.root)), MOUNT)

    both = ders(old.root_pem() + CA.root_pem())
    assert ders(files["ca.pem"]) == ders(files["bundle.pem"]) == both
    assert len([name for name in files if name.startswith("only/")]) == 3
    assert CA.root_pem() in files.values()
    assert old.root_pem() in files.values()


PIECES = st.one_of(
    st.sampled_from([a.pem for a in AUTHORITIES]),
    st.sampled_from([a.key_pem for a in AUTHORITIES[:2]]),
    st.text(alphabet=st.characters(blacklist_characters="-", blacklist_categories=["Cs"])).map(str.encode),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(PIECES, max_size=8))
def test_whatever_stands_in_the_input_the_bundle_has_each_certificate_once_and_no_key(pieces: list[bytes]) -> None:
    text = b"\n".join(pieces)
    wanted = {piece for piece in pieces if piece.startswith(b"-----BEGIN CERTIFICATE")}
    if not wanted:
        with pytest.raises(PemError):
            certificates_in(text, "input")
        return

    bundle = trust_bundle(certificates_in(text, "input"))

    found = certificates_in(bundle, "bundle")
    assert b"PRIVATE KEY" not in re.sub(rb"^#.*$", b"", bundle, flags=re.MULTILINE)
    assert b"-----BEGIN PRIVATE" not in bundle
    assert len(found) == len(wanted)
    assert {to_pem([certificate]) for certificate in found} == wanted
    assert trust_bundle(found) == bundle
