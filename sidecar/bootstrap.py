"""What ``sidecar bootstrap`` does: one folder with the CA for the sidecar, one with what the workload trusts."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from pathlib import Path, PurePath

from cryptography import x509

from sidecar import files, secrets
from sidecar.errors import SidecarError
from sidecar.pki import CaText, SessionCa, issue_session_ca, parse_ca
from sidecar.pki.constraints import constraints_of, sides_of
from sidecar.pki.session_ca import ORGANIZATION, SKEW, VALIDITY
from sidecar.pki.trial import doubts
from sidecar.trust import trust_files
from sidecar.trust.files import LAYOUTS
from sidecar.trust.hashed_dir import HASHED_NAME
from sidecar.trust.keystore import PASSWORD
from sidecar.trust.load import MOZILLA, Sources, load_anchors

_PRIVATE_KEY = re.compile(rb"-----BEGIN [A-Z ]*PRIVATE KEY-----")


class BootstrapError(SidecarError):
    """The folders can't be used as asked."""


class CaState(StrEnum):
    CREATED = "created"
    KEPT = "kept"
    RENEWED = "renewed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What the caller wants."""

    common_name: str
    ca_dir: Path  # for the sidecar alone
    trust_dir: Path  # for the workload
    validity: timedelta = VALIDITY
    skew: timedelta = SKEW
    organization: str = ORGANIZATION
    two_tier: bool = False  # a root whose key is destroyed, above the CA
    constraints: x509.NameConstraints | None = None
    force: bool = False  # a new CA even if there is one
    trust_mount: Path | None = None  # where the workload finds trust_dir, if elsewhere
    sources: Sources = MOZILLA  # whom it trusts besides
    keystore_password: str | None = PASSWORD
    layouts: bool = True  # the distributions' folders; those that are there are kept current in any case


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is going to be on disk."""

    ca: SessionCa
    new: bool  # whether the CA has to be written
    trust: Mapping[str, bytes]
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What was done."""

    ca: SessionCa
    state: CaState
    mount: Path
    written: tuple[Path, ...]
    unchanged: tuple[Path, ...]
    removed: tuple[Path, ...]
    warnings: tuple[str, ...]


def plan(order: Order, existing: SessionCa | None, now: datetime) -> Plan:
    """
    Decide what the folders should hold.

    Args:
        order: What the caller wants.
        existing: The CA to keep; ``None`` for a new one.
        now: Aware, UTC.

    Raises:
        CaError: The order's names or times don't fit a certificate.
        TrustError: The path of the trust folder can't be written into variables, or a bundle holds anything but
            certificates.
        CannotRun: A bundle can't be read.
    """
    ca = existing or issue_session_ca(
        common_name=order.common_name,
        now=now,
        validity=order.validity,
        skew=order.skew,
        organization=order.organization,
        constraints=order.constraints,
        two_tier=order.two_tier,
    )
    anchors, warnings = load_anchors([ca.root], order.sources, now)
    layouts = order.layouts or (order.trust_dir / LAYOUTS).exists()
    trust = trust_files(anchors, mount_of(order), password=order.keystore_password, layouts=layouts)
    return Plan(ca=ca, new=existing is None, trust=trust, warnings=warnings)


def bootstrap(order: Order, now: datetime) -> Report:
    """
    Make both folders what they should be; running again changes only what is missing or stale.

    Raises:
        BootstrapError: One folder lies in the other, the trust folder holds a key, or ``force`` is set for a CA that
            somebody else issues.
        CaError, PemError: The CA that is there can't be used, and ``force`` isn't set.
        TrustError: The path of the trust folder can't be written into variables, or a bundle holds anything but
            certificates.
        CannotRun: A folder or a bundle can't be read, or a folder can't be written.
    """
    _check_folders(order)
    files.make_folder(order.ca_dir, files.SECRET_FOLDER, own=(secrets.CERTIFICATE, secrets.KEY))
    with files.locked(order.ca_dir):
        _finish_interrupted(order.ca_dir, now)
        existed = _has_ca(order)
        existing = secrets.load_ca(order.ca_dir, now) if existed and not order.force else None
        planned = plan(order, existing, now)
        written: list[Path] = []
        if planned.new:
            key, certificate = order.ca_dir / secrets.KEY, order.ca_dir / secrets.CERTIFICATE
            files.write_pair(key, planned.ca.key_pem(), certificate, planned.ca.file_pem(), files.SECRET)
            written = [certificate, key]
        trust_written, unchanged = write_trust(order.trust_dir, planned.trust)
        removed = remove_stale(order.trust_dir, planned.trust)
    state = CaState.KEPT if not planned.new else CaState.RENEWED if existed else CaState.CREATED
    return Report(
        ca=planned.ca,
        state=state,
        mount=mount_of(order),
        written=(*written, *trust_written),
        unchanged=tuple(unchanged),
        removed=tuple(removed),
        warnings=(*_warnings(order, planned, now), *planned.warnings),
    )


def write_trust(folder: Path, trust: Mapping[str, bytes]) -> tuple[list[Path], list[Path]]:
    """
    Write what `trust_files` made into a folder that the workload may read: files 0644, folder 0755.

    Returns:
        The paths that were written, and those that were current already.

    Raises:
        CannotWrite: The file system refuses.
    """
    if any(_PRIVATE_KEY.search(data) for data in trust.values()):
        raise ValueError("a private key must not be written into the trust folder")
    files.make_folder(folder, files.PUBLIC_FOLDER, own={PurePath(name).parts[0] for name in trust})
    return files.write_folder(folder, trust, files.PUBLIC)


def remove_stale(folder: Path, trust: Mapping[str, bytes]) -> list[Path]:
    """
    Take out of the hashed directories who isn't trusted any more: OpenSSL reads whatever has such a name.

    Links are left: we make none, so they are somebody else's.

    Returns:
        The paths that were removed.

    Raises:
        CannotWrite: The file system refuses.
    """
    hashed = {folder / PurePath(name).parent for name in trust if HASHED_NAME.match(PurePath(name).name)}
    current = {folder / name for name in trust}
    present = (path for directory in sorted(hashed) for path in sorted(directory.iterdir()))
    stale = [path for path in present if HASHED_NAME.match(path.name) and path not in current and not path.is_symlink()]
    files.remove(stale)
    return stale


def mount_of(order: Order) -> Path:
    """Where the workload finds the trust folder."""
    return order.trust_mount or order.trust_dir.absolute()


def _check_folders(order: Order) -> None:
    ca_dir, trust_dir = order.ca_dir.resolve(), order.trust_dir.resolve()
    if ca_dir == trust_dir or ca_dir in trust_dir.parents or trust_dir in ca_dir.parents:
        raise BootstrapError(
            f"{order.ca_dir} holds the CA's key and {order.trust_dir} is shown to the workload; "
            "name two folders of which neither lies in the other"
        )
    for _, key in secrets.FORMS:
        if (order.trust_dir / key).exists():
            raise BootstrapError(
                f"{order.trust_dir / key} is a private key, and the workload may read this folder; "
                "take it away, or name another --trust-dir"
            )


def _finish_interrupted(ca_dir: Path, now: datetime) -> None:
    """Where a former run died between the two renames, its key is in place and its certificate waits: take that in."""
    certificate, key = ca_dir / secrets.CERTIFICATE, ca_dir / secrets.KEY
    waiting = files.staged(certificate)
    if waiting.exists() and key.exists():
        try:
            parse_ca(CaText(waiting.read_bytes(), key.read_bytes()), now)
        except SidecarError:
            pass  # it died earlier: what is in place is what was there before
        else:
            files.finish_pair(certificate)
    files.discard_staged(certificate, key)


def _has_ca(order: Order) -> bool:
    if not order.force:
        return secrets.find_ca(order.ca_dir) is not None
    for name in (secrets.SECRET_CERTIFICATE, secrets.SECRET_KEY):
        if (order.ca_dir / name).exists():
            raise BootstrapError(
                f"{order.ca_dir / name} belongs to a CA that its issuer renews; renew it there, "
                "or name another --ca-dir"
            )
    return any((order.ca_dir / name).exists() for name in (secrets.CERTIFICATE, secrets.KEY))


def _warnings(order: Order, planned: Plan, now: datetime) -> Iterator[str]:
    kept = f"the CA in {order.ca_dir} is kept, and it"
    if not planned.new and planned.ca.common_name != order.common_name:
        yield f"{kept} is {planned.ca.common_name!r}, not {order.common_name!r}; --force makes a new one"
    if not planned.new and order.two_tier and len(planned.ca.certificates) == 1:
        yield f"{kept} is its own root; --force makes one of two tiers"
    if order.constraints is not None and not _has(planned.ca, order.constraints):
        yield f"{kept} has other name constraints than the policy asks for; --force makes a new one"
    yield from doubts(planned.ca, now)
    if warning := secrets.key_warning(order.ca_dir):
        yield warning


def _has(ca: SessionCa, wanted: x509.NameConstraints) -> bool:
    """Whether the issuing certificate has just these constraints; each certificate may have its own."""
    found = constraints_of([ca.certificate])
    return any((each.permitted, each.excluded) == sides_of(wanted) for each in found)
