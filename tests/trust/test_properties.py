"""Whatever is fed in: what comes out holds certificates, each once, that OpenSSL reads; or the input is refused."""

import base64
import re
import tempfile
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from OpenSSL import crypto

from sidecar.pki import issue_session_ca
from sidecar.pki.pem import certificates_in, to_pem
from sidecar.trust import TrustError, public_roots, trust_bundle
from sidecar.trust.anchors import certificates_only, unique
from sidecar.trust.hashed_dir import HASHED_NAME, hashed_directory
from sidecar.trust.keystore import aliases, jks, pkcs12
from tests.pki.authorities import NOW, authority
from tests.trust.roots import der, root, tool, write

CAS = [authority(name) for name in ("one", "two", "a\nb", "-----BEGIN PRIVATE KEY-----", "Főtanúsítvány", "one")]
PEMS = [*(ca.pem for ca in CAS), *(to_pem([one]) for one in public_roots()[:20])]
KEYS = [CAS[0].key_pem, issue_session_ca(common_name="x", now=NOW).key_pem()]
OTHERS = [PEMS[0].replace(b"CERTIFICATE", label) for label in (b"TRUSTED CERTIFICATE", b"X509 CRL", b"PKCS7", b"X")]

EXAMPLES = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def changed(pem: bytes, where: int, to: bytes) -> bytes:
    """The certificate of *pem* with another byte somewhere in its DER, well encoded."""
    inner = bytearray(der(certificates_in(pem, "pem")[0]))
    inner[where % len(inner)] = to[0]
    return as_pem(bytes(inner))


def as_pem(content: bytes) -> bytes:
    text = base64.encodebytes(content)
    return b"-----BEGIN CERTIFICATE-----\n" + text + b"-----END CERTIFICATE-----\n"


BYTE = st.binary(min_size=1, max_size=1)
BROKEN = st.builds(changed, st.sampled_from(PEMS), st.integers(0, 4000), BYTE)
# Where names and dates are: mistakes there are what lenient parsers let pass.
ODD = st.builds(changed, st.sampled_from(PEMS[:6]), st.integers(0, 160), BYTE)
CUT = st.builds(lambda pem, end: pem[:end], st.sampled_from(PEMS), st.integers(0, 2000))
TEXT = st.text(alphabet=st.characters(exclude_categories=["Cs"])).map(str.encode)
PIECES = st.one_of(st.sampled_from(PEMS), ODD, BROKEN, CUT, TEXT, st.binary(), st.sampled_from([*KEYS, *OTHERS]))


def openssl_reads(bundle: bytes, count: int) -> None:
    """By the command that users have, which is another version than the library we run on."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "bundle.pem")
        path.write_bytes(bundle)
        said = tool("openssl", "storeutl", "-noout", "-certs", path)
        assert f"Total found: {count}" in said
        assert "Private key" not in tool("openssl", "storeutl", "-noout", path)


@EXAMPLES
@given(st.lists(PIECES, min_size=1, max_size=6), st.sampled_from([b"", b"\n", b"\r\n", b" "]))
@example([PEMS[0], KEYS[0]], b"")
@example([PEMS[0], PEMS[0]], b"\n")
def test_a_bundle_made_of_anything_is_certificates_each_once(pieces: list[bytes], between: bytes) -> None:
    text = between.join(pieces)
    try:
        certificates = certificates_only(text, "input")
    except TrustError as e:
        assert "\n" not in str(e)
        assert not any(line in str(e).encode() for key in KEYS for line in key.splitlines()[1:-1])
        return

    assert not any(key in text for key in KEYS), "an input with a key is refused"
    bundle = trust_bundle(certificates)

    assert b"PRIVATE KEY-----" not in re.sub(rb"^#.*$", b"", bundle, flags=re.MULTILINE)
    assert bundle.isascii()
    found = certificates_only(bundle, "bundle")
    assert list(map(der, found)) == list(dict.fromkeys(map(der, certificates)))
    assert trust_bundle(found) == bundle
    openssl_reads(bundle, len(found))


@EXAMPLES
@given(st.lists(st.one_of(ODD, st.sampled_from(PEMS)), min_size=1, max_size=5))
def test_whoever_is_let_in_has_a_place_in_every_form(pems: list[bytes]) -> None:
    try:
        certificates = certificates_only(b"".join(pems), "input")
    except TrustError:
        return
    listed = unique(certificates)

    hashed = hashed_directory(listed)
    assert len(hashed) == len(listed) + 1
    for name, content in hashed.items():
        if HASHED_NAME.match(name):
            read = crypto.load_certificate(crypto.FILETYPE_PEM, content)
            assert f"{read.subject_name_hash():08x}" == name.partition(".")[0]
    assert len(aliases(listed)) == len(listed)
    assert pkcs12(listed)
    assert jks(listed)


def test_a_change_of_any_one_byte_is_refused_or_read_by_openssl() -> None:
    read: list[x509.Certificate] = []
    for where in range(len(der(CAS[0].certificate))):
        for to in (0x00, 0x11, 0xFF):
            try:
                read += certificates_only(changed(PEMS[0], where, bytes([to])), "input")
            except TrustError as e:
                assert str(e) == "input: its certificate 1 can't be read; copy the file again, whole"
    listed = unique(read)

    assert 100 < len(listed) < len(read)
    openssl_reads(trust_bundle(listed), len(listed))


def test_what_java_could_not_read_is_refused_for_it_would_lose_the_whole_store() -> None:
    algorithm = bytes.fromhex("06082a8648ce3d040302")  # ecdsa-with-SHA256, inside and outside of what is signed
    inner, outer = [found.start() for found in re.finditer(re.escape(algorithm), der(CAS[0].certificate))]

    for where in (inner, outer):
        with pytest.raises(TrustError, match="can't be read"):
            certificates_only(changed(PEMS[0], where + len(algorithm) - 1, b"\x03"), "input")


NAMES = st.text(alphabet=st.characters(exclude_categories=["Cs"], max_codepoint=0xFFFF), min_size=1, max_size=20)


@settings(max_examples=25, deadline=None)
@given(st.lists(NAMES, min_size=1, max_size=6))
@example(["A  b", "a B", " a b "])
def test_any_subject_has_the_hash_that_openssl_rehash_gives(names: list[str]) -> None:
    subjects = [x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]) for name in names]
    certificates = [root(subject) for subject in subjects]
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder), {f"{number}.pem": to_pem([one]) for number, one in enumerate(certificates)})
        tool("openssl", "rehash", folder)
        theirs = {path.name for path in Path(folder).iterdir() if path.is_symlink()}

    assert set(hashed_directory(certificates)) - {"ca-certificates.crt"} == theirs


def test_a_key_s_text_outside_of_a_block_goes_no_further() -> None:
    body = CAS[0].key_pem.splitlines()[1]

    bundle = trust_bundle(certificates_only(PEMS[0] + body + b"\n" + PEMS[1], "input"))

    assert body not in bundle
