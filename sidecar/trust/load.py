"""The roots that a workload is given beside the session CA, read from where they lie."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from cryptography import x509

from sidecar.errors import CannotRun
from sidecar.trust.anchors import Anchors, certificates_only, in_force, unique
from sidecar.trust.errors import TrustError
from sidecar.trust.roots import SYSTEM_BUNDLES, public_roots

CERTIFI: Final = "certifi"
SYSTEM: Final = "system"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """
    Where they come from.

    Attributes:
        roots: ``certifi``, ``system``, or the path of a bundle.
        keep: Bundles that the workload has had: what is in them stays trusted.
        add: More roots: a company's, say.
        also: Former session CAs that are still trusted while clients go over to the new one.
        only: The session CA and nobody else: neither *roots* nor *keep* nor *add*.
    """

    roots: str = CERTIFI
    keep: tuple[Path, ...] = ()
    add: tuple[Path, ...] = ()
    also: tuple[Path, ...] = ()
    only: bool = False


MOZILLA: Final = Sources()


def load_anchors(
    session: Iterable[x509.Certificate], sources: Sources, now: datetime
) -> tuple[Anchors, tuple[str, ...]]:
    """
    Read what *sources* name, and put it beside the session CA.

    Args:
        session: The session CA's root.
        now: Aware, UTC: what has expired is left out.

    Returns:
        What to trust, and one warning for each certificate of a named file that has expired.

    Raises:
        TrustError: A file holds anything but certificates, there is no bundle of the system's, or *only* stands beside
            what it excludes.
        CannotRun: A file can't be read.
    """
    if sources.only and (sources.roots != CERTIFI or sources.keep or sources.add):
        raise TrustError("--only trusts the session CA alone; leave it out, or --roots, --keep and --add")
    complaints: list[str] = []
    former = tuple(_named(sources.also, now, complaints))
    public = () if sources.only else (*_roots(sources.roots, now, complaints), *_more(sources, now, complaints))
    return Anchors(session=unique((*former, *session)), public=unique(public)), tuple(complaints)


def _roots(roots: str, now: datetime, complaints: list[str]) -> Iterable[x509.Certificate]:
    if roots == CERTIFI:
        return in_force(public_roots(), now)[0]
    if roots == SYSTEM:
        found = next((path for path in map(Path, SYSTEM_BUNDLES) if path.is_file()), None)
        if found is None:
            raise TrustError(
                f"--roots system: there is none of {', '.join(SYSTEM_BUNDLES)}; install ca-certificates, "
                "or give --roots certifi or a file"
            )
        return in_force(_read(found), now)[0]
    if "/" not in roots and not Path(roots).exists():
        raise TrustError(
            f"--roots {roots!r}: no such file here; write 'certifi', 'system' or the path of a bundle in PEM"
        )
    return _named((Path(roots),), now, complaints)


def _more(sources: Sources, now: datetime, complaints: list[str]) -> Iterator[x509.Certificate]:
    yield from _named((*sources.keep, *sources.add), now, complaints)


def _named(paths: Iterable[Path], now: datetime, complaints: list[str]) -> Iterator[x509.Certificate]:
    for path in paths:
        current, expired = in_force(_read(path), now)
        yield from current
        complaints += [
            f"{path}: {one.subject.rfc4514_string()!r} is left out: it expired at {one.not_valid_after_utc:%FT%TZ}"
            for one in expired
        ]


def _read(path: Path) -> tuple[x509.Certificate, ...]:
    try:
        pem = path.read_bytes()
    except OSError as e:
        raise CannotRun(f"{path}: {e.strerror}; name a bundle in PEM that this user may read") from None
    return certificates_only(pem, str(path))
