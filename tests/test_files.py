import errno
import os
import stat
import threading
from pathlib import Path

import pytest

from sidecar import files
from sidecar.errors import Exit


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def open_umask() -> object:
    before = os.umask(0)
    yield
    os.umask(before)


@pytest.mark.parametrize("wanted", [files.SECRET, files.PUBLIC])
@pytest.mark.usefixtures("open_umask")
def test_a_file_has_its_mode_and_content(tmp_path: Path, wanted: int) -> None:
    files.write_file(tmp_path / "f", b"data", wanted)

    assert (tmp_path / "f").read_bytes() == b"data"
    assert mode(tmp_path / "f") == wanted
    assert [p.name for p in tmp_path.iterdir()] == ["f"]


def test_a_failed_write_leaves_the_old_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "f"
    files.write_file(path, b"old", files.PUBLIC)
    monkeypatch.setattr(os, "fsync", no_space)

    with pytest.raises(files.CannotWrite, match="No space left") as refused:
        files.write_file(path, b"new", files.PUBLIC)

    assert path.read_bytes() == b"old"
    assert refused.value.exit_code is Exit.CANNOT_RUN


def test_a_link_is_replaced_not_followed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_bytes(b"untouched")
    for name in ("f", ".f.new"):
        (tmp_path / name).symlink_to("elsewhere")

    files.write_file(tmp_path / "f", b"data", files.PUBLIC)

    assert (tmp_path / "elsewhere").read_bytes() == b"untouched"
    assert not (tmp_path / "f").is_symlink()


def test_a_link_put_there_during_the_write_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "elsewhere").write_bytes(b"untouched")
    monkeypatch.setattr(Path, "unlink", lambda path, missing_ok=False: path.symlink_to("elsewhere"))

    with pytest.raises(files.CannotWrite, match="File exists"):
        files.write_file(tmp_path / "f", b"data", files.PUBLIC)

    assert (tmp_path / "elsewhere").read_bytes() == b"untouched"


def test_current_files_are_not_touched_and_others_are(tmp_path: Path) -> None:
    files.write_folder(tmp_path, {"same": b"1", "stale": b"2", "closed": b"3"}, files.PUBLIC)
    (tmp_path / "stale").write_bytes(b"old")
    (tmp_path / "closed").chmod(0o600)
    same = (tmp_path / "same").stat()

    written, unchanged = files.write_folder(
        tmp_path, {"same": b"1", "stale": b"2", "closed": b"3", "missing": b"4"}, files.PUBLIC
    )

    assert [p.name for p in written] == ["stale", "closed", "missing"]
    assert [p.name for p in unchanged] == ["same"]
    assert (tmp_path / "same").stat().st_ino == same.st_ino
    assert mode(tmp_path / "closed") == files.PUBLIC


def test_a_pipe_in_a_files_place_is_replaced_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "f")

    files.write_folder(tmp_path, {"f": b"data"}, files.PUBLIC)

    assert (tmp_path / "f").read_bytes() == b"data"


def test_a_pair_that_cannot_be_staged_leaves_both_as_they_were(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key, certificate = tmp_path / "key", tmp_path / "certificate"
    files.write_pair(key, b"k1", certificate, b"c1", files.SECRET)
    monkeypatch.setattr(os, "fsync", no_space)

    with pytest.raises(files.CannotWrite):
        files.write_pair(key, b"k2", certificate, b"c2", files.SECRET)

    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == {"key": b"k1", "certificate": b"c1"}


def test_a_pair_interrupted_between_its_renames_can_be_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, certificate = tmp_path / "key", tmp_path / "certificate"
    files.write_pair(key, b"k1", certificate, b"c1", files.SECRET)
    with monkeypatch.context() as patched:
        die_at_rename(patched, certificate)
        with pytest.raises(Died):
            files.write_pair(key, b"k2", certificate, b"c2", files.SECRET)
    assert (key.read_bytes(), certificate.read_bytes()) == (b"k2", b"c1")

    files.finish_pair(certificate)

    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == {"key": b"k2", "certificate": b"c2"}


@pytest.mark.parametrize("wanted", [files.SECRET_FOLDER, files.PUBLIC_FOLDER])
@pytest.mark.usefixtures("open_umask")
def test_a_new_folder_has_its_mode(tmp_path: Path, wanted: int) -> None:
    files.make_folder(tmp_path / "a" / "b", wanted, own=())

    assert mode(tmp_path / "a" / "b") == wanted


@pytest.mark.parametrize(
    ("names", "before", "after"),
    [
        pytest.param([], 0o777, 0o700, id="an empty folder of ours is given the mode"),
        pytest.param(["mine", ".mine.new"], 0o755, 0o700, id="so is one with nothing but our files"),
        pytest.param(["mine", "foreign"], 0o755, 0o755, id="one with files of others is left alone"),
        pytest.param([], 0o1777, 0o1777, id="a shared folder with the sticky bit is left alone"),
    ],
)
def test_the_mode_of_a_folder_that_is_there(tmp_path: Path, names: list[str], before: int, after: int) -> None:
    folder = tmp_path / "there"
    folder.mkdir()
    for name in names:
        (folder / name).touch()
    folder.chmod(before)

    files.make_folder(folder, files.SECRET_FOLDER, own=["mine"])

    assert mode(folder) == after


def test_a_file_in_a_folders_place_is_explained(tmp_path: Path) -> None:
    (tmp_path / "f").touch()

    with pytest.raises(files.CannotWrite, match="Not a directory; name a folder"):
        files.make_folder(tmp_path / "f", files.PUBLIC_FOLDER, own=())


def test_a_lock_waits_for_its_holder(tmp_path: Path) -> None:
    order: list[str] = []

    def second() -> None:
        with files.locked(tmp_path):
            order.append("second")

    with files.locked(tmp_path):
        thread = threading.Thread(target=second)
        thread.start()
        thread.join(timeout=0.2)
        assert thread.is_alive()
        order.append("first")
    thread.join(timeout=10)

    assert order == ["first", "second"]


class Died(BaseException):
    """The process's end, as far as a test can bring it about."""


def die_at_rename(patch: pytest.MonkeyPatch, target: Path) -> None:
    rename = Path.replace

    def replace(self: Path, to: Path) -> Path:
        if Path(to) == target:
            raise Died
        return rename(self, to)

    patch.setattr(Path, "replace", replace)


def no_space(descriptor: int) -> None:
    raise OSError(28, "No space left on device")


def test_a_file_that_doesnt_fit_leaves_nothing_and_the_advice_is_to_make_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)

    with pytest.raises(files.CannotWrite, match="make room there"):
        files.write_file(tmp_path / "bundle.pem", b"x", files.PUBLIC)

    assert list(tmp_path.iterdir()) == []
