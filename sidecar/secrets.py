"""The CA from a mounted folder: this project's two files, or a Secret in the form of cert-manager."""

import stat
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from sidecar.errors import CannotRun, SidecarError
from sidecar.pki import CaError, CaText, SessionCa, parse_ca

CERTIFICATE, KEY = "ca.pem", "ca-key.pem"
SECRET_CERTIFICATE, SECRET_KEY, SECRET_ROOTS = "tls.crt", "tls.key", "ca.crt"
FORMS = ((CERTIFICATE, KEY), (SECRET_CERTIFICATE, SECRET_KEY))


@dataclass(frozen=True, slots=True)
class CaFiles:
    """Where a folder holds its CA."""

    certificate: Path
    key: Path
    roots: Path | None = None


def find_ca(folder: Path) -> CaFiles | None:
    """
    Find the pair of files that make up a folder's CA.

    Returns:
        ``ca.pem`` and ``ca-key.pem``, or ``tls.crt`` and ``tls.key`` (with ``ca.crt`` if it's there); ``None`` if the
        folder is missing or holds none of the four.

    Raises:
        CaError: Half a pair, or both pairs.
        CannotRun: The folder may not be searched.
    """
    pairs = [tuple(folder / name for name in form) for form in FORMS]
    found = [pair for pair in pairs if any(_exists(path) for path in pair)]
    if not found:
        return None
    if len(found) > 1:
        raise CaError(
            f"{folder} holds {CERTIFICATE} or {KEY} beside {SECRET_CERTIFICATE} or {SECRET_KEY}; leave one pair"
        )
    certificate, key = found[0]
    for path, other in ((certificate, key), (key, certificate)):
        if not _exists(path):
            raise CaError(
                f"{path} is missing, but {other} is there; mount the pair of one session, or run bootstrap --force"
            )
    roots = folder / SECRET_ROOTS
    return CaFiles(certificate, key, roots if certificate.name == SECRET_CERTIFICATE and _exists(roots) else None)


def ca_paths(folder: Path) -> tuple[Path, ...]:
    """Every file that a folder's CA may consist of, there or not."""
    return tuple(folder / name for name in (*FORMS[0], *FORMS[1], SECRET_ROOTS))


def load_ca(folder: Path, now: datetime) -> SessionCa:
    """
    Read the CA that a folder holds.

    Args:
        folder: Usually a mounted Secret, or what ``bootstrap`` wrote.
        now: Aware, UTC.

    Raises:
        CaError: There is none, or it can't be used (see `parse_ca`).
        PemError: A certificate file is empty, no PEM, or broken.
        CannotRun: A file may not be read.
    """
    while True:
        snapshot = _snapshot(folder)
        try:
            return _load(snapshot, folder, now)
        except SidecarError:
            # A Secret's update replaces all its files at once by moving a link: files of two updates don't match.
            if _snapshot(folder) == snapshot:
                raise


def key_warning(folder: Path) -> str | None:
    """What to say about a key that other users may read, as in a Secret mounted with the default mode."""
    files = find_ca(folder)
    if files is None:
        return None
    mode = stat.S_IMODE(files.key.stat().st_mode)
    if not mode & 0o077:
        return None
    return f"{files.key} may be read by others (mode {mode:04o}); set 0600, or defaultMode: 0400 on the Secret's volume"


def _load(snapshot: Path, folder: Path, now: datetime) -> SessionCa:
    files = find_ca(snapshot)
    if files is None:
        if not _exists(folder):
            raise CaError(f"{folder} does not exist; mount the CA there, or run bootstrap")
        raise CaError(
            f"{folder} holds no CA; mount {CERTIFICATE} and {KEY}, "
            f"or a Secret with {SECRET_CERTIFICATE} and {SECRET_KEY}"
        )
    text = CaText(
        certificate=_read(files.certificate),
        key=_read(files.key),
        roots=_read(files.roots) if files.roots else None,
        certificate_name=str(folder / files.certificate.name),
        key_name=str(folder / files.key.name),
        roots_name=str(folder / SECRET_ROOTS),
    )
    return parse_ca(text, now)


def _snapshot(folder: Path) -> Path:
    """The folder behind a Secret volume's ``..data`` link, the same while it is read; or *folder* itself."""
    data = folder / "..data"
    return data.resolve() if data.is_symlink() else folder


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError as e:
        raise CannotRun(f"{path}: {e.strerror}; let this user read the folder") from e


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as e:
        raise CannotRun(f"{path}: {e.strerror}; let this user read the file (fsGroup, or its owner)") from e
