import re
import time
from pathlib import PurePosixPath

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.pki import SessionCa, issue_session_ca
from sidecar.pki.pem import PemError, certificates_in, to_pem
from sidecar.trust import public_roots, trust_bundle, trust_files
from tests.pki.authorities import NOW, authority

CA = issue_session_ca(common_name="session-7", now=NOW)
AUTHORITIES = [authority(name) for name in ("one", "two", "a\nb", "-----BEGIN PRIVATE KEY-----", "Főtanúsítvány")]
MOUNT = PurePosixPath("/etc/egress/trust")


def ders(pem: bytes) -> list[bytes]:
    return [certificate.public_bytes(Encoding.DER) for certificate in certificates_in(pem, "bundle.pem")]


def test_the_bundle_is_the_public_roots_and_the_session_ca_each_once() -> None:
    bundle = trust_files(CA, MOUNT)["bundle.pem"]

    expected = {certificate.public_bytes(Encoding.DER) for certificate in (*public_roots(), CA.root)}
    assert len(expected) > 100
    assert len(ders(bundle)) == len(expected)
    assert set(ders(bundle)) == expected


def test_same_input_same_bytes() -> None:
    assert trust_files(CA, MOUNT) == trust_files(CA, MOUNT)


def test_ca_pem_is_the_session_ca_alone() -> None:
    assert trust_files(CA, MOUNT)["ca.pem"] == CA.root_pem()


def test_below_an_intermediate_the_root_is_trusted() -> None:
    root = authority("root")
    issuing = authority("issuing", root)
    files = trust_files(SessionCa(issuing.key, (issuing.certificate,), root.certificate), MOUNT, roots=())

    assert ders(files["ca.pem"]) == ders(files["bundle.pem"]) == ders(root.pem)


def test_other_roots_take_the_place_of_the_public_ones() -> None:
    bundle = trust_files(CA, MOUNT, roots=[AUTHORITIES[0].certificate, CA.root])["bundle.pem"]

    assert ders(bundle) == ders(AUTHORITIES[0].pem + CA.root_pem())


def test_no_file_holds_a_key() -> None:
    assert not any(b"PRIVATE KEY" in data for data in trust_files(CA, MOUNT).values())


def test_a_comment_names_each_subject() -> None:
    assert trust_bundle([CA.root]).startswith(b"# CN=session-7,O=Egress Sidecar\n-----BEGIN CERTIFICATE-----\n")


def test_a_subject_can_neither_end_its_comment_nor_start_a_block() -> None:
    bundle = trust_bundle(a.certificate for a in AUTHORITIES)

    assert bundle.isascii()
    assert b"-----BEGIN PRIVATE" not in bundle
    assert rb"# CN=a\nb" in bundle
    assert len(re.findall(rb"^#", bundle, re.MULTILINE)) == len(AUTHORITIES)


def test_a_bundle_takes_less_than_100_ms_once_the_roots_are_parsed() -> None:
    public_roots()
    seconds = min(timed() for _ in range(5))

    assert seconds < 0.1


def timed() -> float:
    begin = time.perf_counter()
    trust_files(CA, MOUNT)
    return time.perf_counter() - begin


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
