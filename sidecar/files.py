"""Files as they must be on disk: whole or not at all, in the right mode, never through somebody's symbolic link."""

import errno
import fcntl
import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from sidecar.errors import CannotRun

SECRET = 0o600
PUBLIC = 0o644
SECRET_FOLDER = 0o700
PUBLIC_FOLDER = 0o755

type Owner = tuple[int, int]  # user and group, numbers


class CannotWrite(CannotRun):
    """This user may not write here, or the disk is full."""


def write_file(path: Path, data: bytes, mode: int, owner: Owner | None = None, *, durable: bool = True) -> None:
    """
    Replace a file atomically: after a crash there is the old content or the new one.

    Not *durable*, that holds for a crash of the process alone: without waiting for the disk, hundreds of files take
    milliseconds. For what is made again from other files, and compared before it is kept.

    Raises:
        CannotWrite: The file system refuses, or this user may not give files to *owner*.
    """
    with _explained(path):
        try:
            _stage(path, data, mode, owner, durable=durable)
        except (OSError, CannotWrite):
            discard_staged(path)  # half a file would go on to fill the disk
            raise
        _commit(path, durable=durable)


def write_pair(
    first: Path,
    first_data: bytes,
    second: Path,
    second_data: bytes,
    mode: int,
    second_mode: int | None = None,
    owner: Owner | None = None,
) -> None:
    """
    Replace two files of one folder that only mean something together.

    Two renames can't be one step. So both are written beside their places first; only then *first* is put in its
    place, then *second*. A crash in between leaves *second*'s content whole in ``staged(second)``: whoever finds that
    it belongs to *first* calls `finish_pair`. Both have *mode*, or the second one its own.

    Raises:
        CannotWrite: The file system refuses, or this user may not give files to *owner*. Before the first rename,
            nothing has changed.
    """
    with _explained(first):
        try:
            _stage(second, second_data, mode if second_mode is None else second_mode, owner)
            _stage(first, first_data, mode, owner)
        except (OSError, CannotWrite):
            discard_staged(first, second)
            raise
        _commit(first)
        _commit(second)


def finish_pair(second: Path) -> None:
    """Put the staged content of a pair's second file in its place, after a crash between the two renames."""
    with _explained(second):
        _commit(second)


def staged(path: Path) -> Path:
    """Where a file's next content waits for its rename."""
    return path.with_name(f".{path.name}.new")


def discard_staged(*paths: Path) -> None:
    """Remove what a crash left half-written."""
    for path in paths:
        with suppress(OSError):
            staged(path).unlink()


def remove(paths: Iterable[Path]) -> None:
    """
    Remove files; those that are gone already are no error.

    Raises:
        CannotWrite: The file system refuses.
    """
    for path in paths:
        with _explained(path):
            path.unlink(missing_ok=True)


def write_folder(folder: Path, files: Mapping[str, bytes], mode: int) -> tuple[list[Path], list[Path]]:
    """
    Bring files up to date, each atomically; those that have the content and the mode already aren't touched.

    Names may lead into folders, which are made; what lies in those isn't waited for (see `write_file`).

    Returns:
        The paths that were written, and those that weren't.

    Raises:
        CannotWrite: The file system refuses.
    """
    written, unchanged = [], []
    _make_folders(folder, files)
    for name, data in files.items():
        path = folder / name
        if is_current(path, data, mode):
            unchanged.append(path)
        else:
            write_file(path, data, mode, durable=path.parent == folder)
            written.append(path)
    return written, unchanged


def is_current(path: Path, data: bytes, mode: int, owner: Owner | None = None) -> bool:
    """Whether a file has this content and mode already, and this owner if one is given."""
    try:
        status = path.lstat()
        # Regular files only: reading a named pipe that somebody put there would wait forever.
        return (
            stat.S_ISREG(status.st_mode)
            and stat.S_IMODE(status.st_mode) == mode
            and owner in (None, (status.st_uid, status.st_gid))
            and path.read_bytes() == data
        )
    except OSError:
        return False


def _make_folders(folder: Path, files: Iterable[str]) -> None:
    """The folders between *folder* and its files, whoever may read *folder*."""
    holds: dict[str, set[str]] = {}
    for name in files:
        parts = name.split("/")
        for depth in range(1, len(parts)):
            holds.setdefault("/".join(parts[:depth]), set()).add(parts[depth])
    for inner, own in sorted(holds.items()):
        path = folder / inner
        with _explained(path):
            if path.is_symlink():
                raise NotADirectoryError(errno.ENOTDIR, "is a link and may lead elsewhere", str(path))
        make_folder(path, PUBLIC_FOLDER, own=own)


def make_folder(folder: Path, mode: int, *, own: Iterable[str]) -> None:
    """
    Make a folder, or give one that is there already its mode.

    The mode of an existing folder is changed only if it is this user's and holds nothing but *own* names: the shared
    folder of others, ``/tmp`` say, stays as it is.

    Raises:
        CannotWrite: The file system refuses, or something else has that name.
    """
    with _explained(folder):
        if not folder.exists():
            folder.mkdir(mode=mode, parents=True)
            folder.chmod(mode)  # mkdir's mode is cut by the umask
            return
        status = folder.stat()
        names = {entry.name for entry in folder.iterdir()}
        ours = {*own, *(staged(folder / name).name for name in own)}
        if status.st_uid == os.geteuid() and not status.st_mode & stat.S_ISVTX and names <= ours:
            with suppress(OSError):  # mounted read-only, say: what is in it has its own mode
                folder.chmod(mode)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """
    Hold a folder against others that lock it too; waits for them. The lock ends with the process at the latest.

    Raises:
        CannotWrite: The folder can't be opened.
    """
    with _explained(folder):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with _explained(folder):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _stage(path: Path, data: bytes, mode: int, owner: Owner | None, *, durable: bool = True) -> None:
    beside = staged(path)
    beside.unlink(missing_ok=True)
    # O_EXCL: who else may write to this folder could have put a link there since.
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, SECRET)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        if owner is not None:
            _give(descriptor, path, owner)
        os.fchmod(descriptor, mode)
        if durable:
            os.fsync(descriptor)


def _give(descriptor: int, path: Path, owner: Owner) -> None:
    try:
        os.fchown(descriptor, *owner)
    except PermissionError:
        raise CannotWrite(
            f"{path} may not be given to {owner[0]}:{owner[1]} by this user; run as that user instead, "
            "or as root with CHOWN"
        ) from None


def _commit(path: Path, *, durable: bool = True) -> None:
    staged(path).replace(path)
    if not durable:
        return
    descriptor = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with suppress(OSError):  # some file systems can't sync a folder; the rename is still atomic
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as e:
        where = e.filename or path
        full = e.errno in (errno.ENOSPC, errno.EDQUOT)
        advice = "make room there, or name" if full else "name a folder that this user may write to, or mount"
        raise CannotWrite(f"{where}: {e.strerror}; {advice} {'another folder' if full else 'one'}") from e
