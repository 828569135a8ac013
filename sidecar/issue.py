"""What ``sidecar issue`` does: this pod's own key and certificate in a folder of the workload's, and never the CA's."""

import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_der_private_key, load_pem_private_key

from sidecar import files, secrets
from sidecar.errors import CannotRun, SidecarError
from sidecar.pki import SessionCa
from sidecar.pki.held import Held, ours, why_renew
from sidecar.pki.serving import Serving, ServingError, Wish, issue_serving

CERTIFICATE, KEY, ROOT = "tls.crt", "tls.key", "ca.crt"

_PEM = re.compile(rb"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?-----END [A-Z ]*PRIVATE KEY-----", re.DOTALL)
_LARGEST = 1 << 18  # bytes; no key or chain comes near it
_MOST_FILES = 1000


class State(StrEnum):
    ISSUED = "issued"
    KEPT = "kept"
    RENEWED = "renewed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What the caller wants."""

    ca_dir: Path  # for this command alone
    out: Path  # for the workload
    wish: Wish
    key_mode: int = files.SECRET
    owner: files.Owner | None = None  # of all three files; None: this user
    force: bool = False  # a new pair, whatever is there


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What was done."""

    ca: SessionCa
    serving: Serving
    state: State
    because: str | None  # why it was renewed
    written: tuple[Path, ...]
    unchanged: tuple[Path, ...]
    warnings: tuple[str, ...]


def issue(order: Order, now: datetime) -> Report:
    """
    Make the folder hold the certificate that was asked for; running again changes only what is missing or due.

    Raises:
        CaError, PemError: The CA can't be used.
        ServingError: The folder shows the CA's key to the workload, what is in it isn't ours to replace and ``force``
            isn't set, or the CA may not certify what was asked for.
        CannotRun: A folder can't be read or written.
    """
    ca = secrets.load_ca(order.ca_dir, now)
    _check_folders(order)
    if not _is_there(order.out):
        files.make_folder(order.out, files.PUBLIC_FOLDER, own=())
    _check_exposure(order, ca)
    with files.locked(order.out):
        _finish_interrupted(order.out, ca)
        existing = None if order.force else ours(_held(order.out), ca)
        replaced = order.force and (order.out / CERTIFICATE).exists()
        because = why_renew(existing, ca, order.wish, now) if existing is not None else None
        if existing is not None and because is None:
            serving, state = existing, State.KEPT
        else:
            serving = issue_serving(ca, order.wish, now)
            state = State.RENEWED if existing is not None or replaced else State.ISSUED
        written, unchanged = _write(order, ca, serving)
    return Report(
        ca=ca,
        serving=serving,
        state=state,
        because="of --force" if replaced else because,
        written=tuple(written),
        unchanged=tuple(unchanged),
        warnings=tuple(_warnings(order, ca, serving)),
    )


def _is_there(folder: Path) -> bool:
    """A volume has the mode that Kubernetes gives it, an fsGroup's bit among it: only a new folder gets one of ours."""
    try:
        return folder.exists()
    except OSError:
        return False  # making it will say why


def _check_folders(order: Order) -> None:
    ca_dir, out = order.ca_dir.resolve(), order.out.resolve()
    if ca_dir == out or ca_dir in out.parents or out in ca_dir.parents:
        raise ServingError(
            f"{order.ca_dir} holds the CA's key and {order.out} is shown to the workload; "
            "name two folders of which neither lies in the other"
        )


def _check_exposure(order: Order, ca: SessionCa) -> None:
    """Whatever the folders are called: one volume may be mounted twice, and keys are copied."""
    found = secrets.find_ca(order.ca_dir)
    signing = found.key.stat() if found is not None else None
    for path in _files_below(order.out):
        status = path.stat()
        if (signing is not None and os.path.samestat(status, signing)) or _holds_key(path, status, ca):
            raise ServingError(
                f"{path} is the key of the CA, and {order.out} is shown to the workload; "
                "take it away, and mount the CA into this container alone"
            )


def _files_below(folder: Path) -> Iterator[Path]:
    """Regular files, not through links; what this user can't search is passed over."""
    count = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            path = Path(parent, name)
            if not stat.S_ISREG(path.lstat().st_mode):
                continue
            if (count := count + 1) > _MOST_FILES:
                raise ServingError(
                    f"{folder} holds more than {_MOST_FILES} files, and the CA's key may be among them; "
                    "give --out a folder of its own"
                )
            yield path


def _holds_key(path: Path, status: os.stat_result, ca: SessionCa) -> bool:
    if status.st_size > _LARGEST:
        return False
    try:
        data = path.read_bytes()
    except OSError:
        return False
    return any(_is_key_of(ca, block) for block in (*_PEM.findall(data), data))


def _is_key_of(ca: SessionCa, data: bytes) -> bool:
    load = load_pem_private_key if data.startswith(b"-----BEGIN") else load_der_private_key
    try:
        return load(data, password=None).public_key() == ca.key.public_key()
    except (ValueError, TypeError, UnsupportedAlgorithm):  # no key, an encrypted one, or one of another kind
        return False


def _held(out: Path) -> Held:
    certificate, key, root = (out / name for name in (CERTIFICATE, KEY, ROOT))
    return Held(_read(certificate), _read(key), _read(root), str(certificate), str(key), str(root))


def _read(path: Path) -> bytes | None:
    """The content of a file, without waiting on a pipe or following a link that the workload has put there."""
    try:
        status = path.lstat()
        if not stat.S_ISREG(status.st_mode) or status.st_size > _LARGEST:
            raise ServingError(f"{path} is no file that this command writes; name another --out, or --force")
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as e:
        raise CannotRun(f"{path}: {e.strerror}; run as the user that owns it") from e


def _finish_interrupted(out: Path, ca: SessionCa) -> None:
    """Where a former run died between the two renames, its key is in place and its certificate waits: take that in."""
    certificate, key = out / CERTIFICATE, out / KEY
    waiting = files.staged(certificate)
    try:
        belongs = ours(Held(_read(waiting), _read(key), None), ca) is not None
    except SidecarError:
        belongs = False  # it died earlier, or not at all: what is in place is what was there before
    if belongs:
        files.finish_pair(certificate)
    files.discard_staged(certificate, key, out / ROOT)


def _write(order: Order, ca: SessionCa, serving: Serving) -> tuple[list[Path], list[Path]]:
    root, certificate, key = order.out / ROOT, order.out / CERTIFICATE, order.out / KEY
    root_data, chain_data, key_data = ca.root_pem(), serving.certificate_pem(), serving.key_pem()
    written: list[Path] = []
    if not files.is_current(root, root_data, files.PUBLIC, order.owner):
        files.write_file(root, root_data, files.PUBLIC, order.owner)
        written.append(root)
    pair_is_current = files.is_current(certificate, chain_data, files.PUBLIC, order.owner) and files.is_current(
        key, key_data, order.key_mode, order.owner
    )
    if not pair_is_current:
        files.write_pair(key, key_data, certificate, chain_data, order.key_mode, files.PUBLIC, order.owner)
        written += [certificate, key]
    return written, [path for path in (root, certificate, key) if path not in written]


def _warnings(order: Order, ca: SessionCa, serving: Serving) -> Iterator[str]:
    end = serving.certificate.not_valid_after_utc
    if end == ca.not_after:
        yield (
            f"the certificate ends with its CA, at {end:%Y-%m-%dT%H:%M:%SZ}; restart the pod before, "
            "or use a CA that lives longer"
        )
    if ca.root.subject != ca.root.issuer:
        yield (
            f"{order.out / ROOT} holds {ca.common_name!r}, which is no root: many clients want one; "
            f"put the root into the CA's folder as {secrets.SECRET_ROOTS}"
        )
