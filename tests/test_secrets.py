from pathlib import Path

import pytest

from sidecar.errors import CannotRun, Exit, SidecarError
from sidecar.pki import CaError, issue_session_ca
from sidecar.secrets import find_ca, key_warning, load_ca
from tests.pki.authorities import NOW, authority

CA = issue_session_ca(common_name="session-7", now=NOW)
OTHER = issue_session_ca(common_name="session-8", now=NOW)
ROOT = authority("root")
ISSUING = authority("issuing", ROOT)


def write(folder: Path, **contents: bytes) -> Path:
    folder.mkdir(exist_ok=True)
    for name, data in contents.items():
        path = (
            folder / {"ca": "ca.pem", "key": "ca-key.pem", "crt": "tls.crt", "tls": "tls.key", "root": "ca.crt"}[name]
        )
        path.write_bytes(data)
        path.chmod(0o600)
    return folder


def test_our_own_pair_is_loaded(tmp_path: Path) -> None:
    assert load_ca(write(tmp_path, ca=CA.chain_pem(), key=CA.key_pem()), NOW) == CA


def test_a_secret_of_cert_manager_is_loaded_with_chain_and_root(tmp_path: Path) -> None:
    ca = load_ca(write(tmp_path, crt=ISSUING.pem, tls=ISSUING.key_pem, root=ROOT.pem), NOW)

    assert (ca.chain, ca.root) == ((ISSUING.certificate,), ROOT.certificate)


@pytest.mark.parametrize(
    ("contents", "says"),
    [
        pytest.param({}, "holds no CA; mount ca.pem and ca-key.pem, or a Secret", id="an empty folder"),
        pytest.param({"root": b"x"}, "holds no CA", id="ca.crt alone is no pair"),
        pytest.param({"ca": CA.chain_pem()}, "/ca-key.pem is missing, but", id="a certificate without its key"),
        pytest.param({"key": CA.key_pem()}, "/ca.pem is missing, but", id="a key without its certificate"),
        pytest.param({"crt": CA.chain_pem()}, "/tls.key is missing, but", id="half a Secret"),
        pytest.param(
            {"ca": CA.chain_pem(), "key": CA.key_pem(), "crt": CA.chain_pem()},
            "leave one pair",
            id="both forms at once",
        ),
        pytest.param({"ca": b"", "key": CA.key_pem()}, "/ca.pem is empty", id="an empty file"),
        pytest.param({"ca": CA.chain_pem(), "key": OTHER.key_pem()}, "/ca-key.pem does not belong to", id="a mismatch"),
        pytest.param({"crt": CA.chain_pem(), "tls": b"x"}, "/tls.key holds no private key", id="a bogus key"),
    ],
)
def test_a_folder_without_a_usable_ca_says_which_file(tmp_path: Path, contents: dict[str, bytes], says: str) -> None:
    folder = write(tmp_path / "ca", **contents)

    with pytest.raises(SidecarError) as refused:
        load_ca(folder, NOW)

    assert says in str(refused.value)
    assert str(folder) in str(refused.value)
    assert refused.value.exit_code is Exit.BAD_INPUT


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(CaError, match="nowhere does not exist; mount the CA there, or run bootstrap"):
        load_ca(tmp_path / "nowhere", NOW)
    assert find_ca(tmp_path / "nowhere") is None


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    write(tmp_path, key=CA.key_pem())
    (tmp_path / "ca.pem").mkdir()

    with pytest.raises(CannotRun, match=r"/ca\.pem: Is a directory; let this user read the file"):
        load_ca(tmp_path, NOW)


def test_a_key_that_others_may_read_is_a_warning_only(tmp_path: Path) -> None:
    write(tmp_path, ca=CA.chain_pem(), key=CA.key_pem())
    assert key_warning(tmp_path) is None

    (tmp_path / "ca-key.pem").chmod(0o644)

    assert "may be read by others (mode 0644)" in (key_warning(tmp_path) or "")
    assert load_ca(tmp_path, NOW) == CA


def test_a_secret_that_changes_while_it_is_read_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # As the kubelet lays out a volume: names link through ..data, which moves to the next folder in one step.
    write(tmp_path / "..1", crt=CA.chain_pem(), tls=CA.key_pem())
    write(tmp_path / "..2", crt=OTHER.chain_pem(), tls=OTHER.key_pem())
    data = tmp_path / "..data"
    data.symlink_to("..1")
    for name in ("tls.crt", "tls.key"):
        (tmp_path / name).symlink_to(f"..data/{name}")
    read = Path.read_bytes

    def read_while_the_kubelet_updates(path: Path) -> bytes:
        if path.name == "tls.key" and data.readlink() == Path("..1"):
            data.unlink()
            data.symlink_to("..2")
            (tmp_path / "..1" / "tls.key").unlink()
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", read_while_the_kubelet_updates)

    assert load_ca(tmp_path, NOW) == OTHER
