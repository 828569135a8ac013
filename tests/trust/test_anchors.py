"""What may be in a bundle that somebody else has written, and how the sources are put together."""

from datetime import timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.hazmat.primitives.serialization.pkcs7 import serialize_certificates

from sidecar.errors import CannotRun
from sidecar.trust import TrustError, public_roots
from sidecar.trust import load as load_module
from sidecar.trust.anchors import Anchors, certificates_only
from sidecar.trust.keystore import pkcs12
from sidecar.trust.layouts import Family, layout, stores
from sidecar.trust.load import Sources, load_anchors
from tests.pki.authorities import DAY, NOW, authority
from tests.trust.roots import der, tool, write

ONE, TWO, THREE = (authority(name) for name in ("one", "two", "three"))
EXPIRED = authority("expired", begin=NOW - 9 * DAY, end=NOW - DAY)
PUBLIC = tuple(one for one in public_roots() if one.not_valid_after_utc >= NOW)
ENCRYPTED = b"-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n"


def block(label: str) -> bytes:
    return ONE.pem.replace(b"CERTIFICATE", label.encode())


def test_certificates_are_read_in_order_and_comments_passed_over() -> None:
    text = b"# one\r\n" + ONE.pem.replace(b"\n", b"\r\n") + "\nSubject: ≈ two -- \n".encode() + TWO.pem.strip()

    assert certificates_only(text, "f") == (ONE.certificate, TWO.certificate)


@pytest.mark.parametrize(
    ("pem", "says"),
    [
        pytest.param(b"", "holds no certificate", id="nothing"),
        pytest.param(b"<html>Not found</html>", "holds no certificate", id="a page that says it wasn't found"),
        pytest.param(ONE.pem + ONE.key_pem, r"f:\d+: holds a private key", id="a key behind the certificate"),
        pytest.param(ONE.key_pem, r"f:1: holds a private key", id="a key alone"),
        pytest.param(ONE.pem + ENCRYPTED, "holds a private key", id="an encrypted key"),
        pytest.param(block("RSA PRIVATE KEY"), "holds a private key", id="a key in the older form"),
        pytest.param(b"x" + ONE.key_pem, "holds a private key", id="a key whose line doesn't begin the line"),
        pytest.param(block("TRUSTED CERTIFICATE"), "openssl x509 -in", id="OpenSSL's trusted form"),
        pytest.param(block("X509 CERTIFICATE"), "write CERTIFICATE instead", id="the older label"),
        pytest.param(block("X509 CRL"), "revocation list", id="a CRL"),
        pytest.param(block("PKCS7"), "openssl pkcs7", id="PKCS#7"),
        pytest.param(block("CERTIFICATE REQUEST"), "a request", id="a request"),
        pytest.param(block("PUBLIC KEY"), "holds 'PUBLIC KEY'", id="a public key"),
        pytest.param(block("OPENSSH PRIVATE KEY"), "holds a private key", id="an SSH key"),
        pytest.param(block("PGP MESSAGE"), "take it out", id="something else"),
        pytest.param(ONE.pem[:-30], "has no end", id="cut off at the end"),
        pytest.param(ONE.pem[:300] + b"\n" + TWO.pem, "cut off or begins twice", id="cut off in the middle"),
        pytest.param(ONE.pem[30:], "cut off or begins twice", id="cut off at the beginning"),
        pytest.param(b"-----BEGIN\n" + ONE.pem, "without saying of what", id="a block of nothing"),
        pytest.param(ONE.pem.replace(b"M", b"N", 1), "its certificate 1 can't be read", id="a changed character"),
        pytest.param(TWO.pem + ONE.pem.replace(b"MII", b"M*I", 1), "certificate 2 can't be read", id="no base64"),
        pytest.param(der(ONE.certificate), "isn't text.*openssl x509 -inform DER", id="DER"),
        pytest.param(ONE.pem + der(TWO.certificate), "isn't text", id="DER behind PEM"),
        pytest.param(pkcs12([ONE.certificate]), "isn't text", id="PKCS#12"),
        pytest.param(ONE.pem.decode().encode("utf-16"), "isn't text", id="UTF-16"),
        pytest.param(serialize_certificates([ONE.certificate], Encoding.PEM), "holds 'PKCS7'", id="a chain in PKCS#7"),
    ],
)  # fmt: skip
def test_anything_but_certificates_is_refused_by_name(pem: bytes, says: str) -> None:
    with pytest.raises(TrustError, match=says) as raised:
        certificates_only(pem, "f")

    assert str(raised.value).startswith("f")
    assert "\n" not in str(raised.value)
    assert ONE.key_pem.decode().splitlines()[1] not in str(raised.value)


def test_rhel_s_own_form_is_refused_with_the_way_out(tmp_path: Path) -> None:
    files = layout(Family.RHEL, stores(Anchors(session=(ONE.certificate,))))
    write(tmp_path, {"trusted": files["etc/pki/tls/certs/ca-bundle.trust.crt"]})

    with pytest.raises(TrustError, match="TRUSTED CERTIFICATE"):
        certificates_only((tmp_path / "trusted").read_bytes(), "f")
    plain = tool("openssl", "x509", "-in", tmp_path / "trusted")
    assert certificates_only(plain.encode(), "f") == (ONE.certificate,)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(
        tmp_path,
        {
            "roots": ONE.pem + EXPIRED.pem,
            "image": TWO.pem + ONE.pem,
            "company": THREE.pem + TWO.pem,
            "old": EXPIRED.pem + TWO.pem,
            "key": ONE.pem + ONE.key_pem,
        },
    )
    return tmp_path


SESSION = authority("session").certificate


def test_mozilla_s_roots_are_the_default() -> None:
    anchors, warnings = load_anchors([SESSION], Sources(), NOW)

    assert anchors == Anchors(session=(SESSION,), public=PUBLIC)
    assert anchors.all == (*PUBLIC, SESSION)
    assert warnings == ()


def test_an_expired_root_is_left_out_and_nobody_is_told_of_mozilla_s() -> None:
    late = min(one.not_valid_after_utc for one in PUBLIC) + timedelta(seconds=1)

    anchors, warnings = load_anchors([SESSION], Sources(), late)

    assert 0 < len(anchors.public) < len(PUBLIC)
    assert warnings == ()


def test_roots_then_those_that_are_kept_then_those_that_are_added(folder: Path) -> None:
    sources = Sources(roots=str(folder / "roots"), keep=(folder / "image",), add=(folder / "company",))

    anchors, warnings = load_anchors([SESSION], sources, NOW)

    assert anchors.public == (ONE.certificate, TWO.certificate, THREE.certificate)
    assert warnings == (f"{folder / 'roots'}: 'CN=expired' is left out: it expired at 2026-05-03T12:00:00Z",)


def test_a_former_session_ca_is_trusted_beside_the_new_one(folder: Path) -> None:
    anchors, warnings = load_anchors([SESSION], Sources(also=(folder / "old",), only=True), NOW)

    assert anchors == Anchors(session=(TWO.certificate, SESSION))
    assert len(warnings) == 1


def test_only_the_session_ca() -> None:
    assert load_anchors([SESSION], Sources(only=True), NOW)[0].all == (SESSION,)


@pytest.mark.parametrize(
    "sources",
    [Sources(only=True, add=(Path("f"),)), Sources(only=True, keep=(Path("f"),)), Sources(only=True, roots="f")],
)
def test_only_excludes_all_others(sources: Sources) -> None:
    with pytest.raises(TrustError, match="--only"):
        load_anchors([SESSION], sources, NOW)


def test_the_system_s_roots_are_found_where_the_system_has_them(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load_module, "SYSTEM_BUNDLES", (str(folder / "missing"), str(folder / "image")))

    assert load_anchors([SESSION], Sources(roots="system"), NOW)[0].public == (TWO.certificate, ONE.certificate)


def test_a_system_without_roots_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load_module, "SYSTEM_BUNDLES", ("/missing/a", "/missing/b"))

    with pytest.raises(TrustError, match="none of /missing/a, /missing/b; install ca-certificates"):
        load_anchors([SESSION], Sources(roots="system"), NOW)


@pytest.mark.parametrize("option", ["keep", "add", "also"])
def test_a_key_in_any_source_is_refused_with_the_file_s_name(folder: Path, option: str) -> None:
    with pytest.raises(TrustError, match=rf"{folder}/key:\d+: holds a private key"):
        load_anchors([SESSION], Sources(**{option: (folder / "key",)}), NOW)  # type: ignore[arg-type]


def test_a_mistyped_word_for_the_roots_is_no_missing_file() -> None:
    with pytest.raises(TrustError, match="--roots 'systm': no such file here; write 'certifi', 'system' or"):
        load_anchors([SESSION], Sources(roots="systm"), NOW)


def test_a_source_that_is_not_there_is_told(folder: Path) -> None:
    with pytest.raises(CannotRun, match="missing: No such file"):
        load_anchors([SESSION], Sources(roots=str(folder / "missing")), NOW)
