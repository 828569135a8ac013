"""
The CA's folder is watched: a new CA is validated, then signs what is new; one that can't be used changes nothing.

Under the same root that is at once. A new root waits until the workload's trust bundle, which is watched as well, has
held both roots for long enough: see `sidecar.pki.rotation`.
"""

import asyncio
import logging
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from cryptography import x509

from sidecar.errors import CannotRun, SidecarError
from sidecar.events.model import CaReloadFailed, CaRotationPending
from sidecar.pki.coverage import check_coverage
from sidecar.pki.pem import certificates_in
from sidecar.pki.rotation import OVERLAP, Since, Wait, decide, seen
from sidecar.pki.session_ca import SessionCa
from sidecar.policy import PolicyError
from sidecar.reasons import PendingReason, RotationReason
from sidecar.runtime.session import Session
from sidecar.runtime.watch import watching
from sidecar.secrets import ca_paths, load_ca

PATIENCE_SECONDS = 3.0  # for files that don't belong together to become a CA: they are written one after the other
AGAIN_SECONDS = 0.2  # between two readings meanwhile
STEADY_SECONDS = 1.0  # without a change, before a root that has left the bundle counts as withdrawn

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Mounted:
    """
    Where the CA comes from, and what the workload is told to trust.

    Attributes:
        ca: The CA's folder.
        bundle: The workload's trust bundle (PEM), as the sidecar sees it; None if it doesn't.
        overlap: How long the bundle must have held the old root and the new one.
    """

    ca: Path
    bundle: Path | None = None
    overlap: timedelta = OVERLAP

    def paths(self) -> tuple[Path, ...]:
        """All files of which a change is looked into."""
        return (*ca_paths(self.ca), *((self.bundle,) if self.bundle is not None else ()))


class Rotator:
    """
    Has the session's CA be the one that is mounted, as soon as that may be.

    Args:
        session: Whose CA it is; what is wrong and what is waited for is left in its ``ca_problems`` and ``ca_pending``.
        mounted: What to read.
        patience: Seconds.
    """

    def __init__(self, session: Session, mounted: Mounted, *, patience: float = PATIENCE_SECONDS) -> None:
        self._session, self._mounted, self._patience = session, mounted, patience
        self._bundle: Since = {}
        self._readable = True
        self._told: object = None  # the last announcement of a new CA that waits

    def watch(self, *, poll: bool = False) -> AbstractAsyncContextManager[None]:
        """Follow the files for as long as the context is open."""
        return watching(self._mounted.paths, self.read, unread=self._unsettled, poll=poll)

    def _unsettled(self) -> bool:
        """Time alone may change what follows: an overlap ends, a CA becomes valid, file descriptors come free."""
        return bool(self._session.ca_problems) or self._session.ca_pending is not None or not self._readable

    async def read(self) -> None:
        """Read all files anew, and do what follows from them."""
        try:
            await self._read_bundle()
            ca = await self._read_ca()
            self._session.ca_problems = ()
            self._consider(ca)
        except SidecarError as e:
            self._failed((str(e),))
        except Exception as e:  # a defect in reading must not end the watching
            _log.exception("the CA could not be read")
            self._failed((f"{self._mounted.ca}: can't be read: {type(e).__name__}",))

    def _consider(self, new: SessionCa) -> None:
        """Decide about the CA that is mounted, as things stand and by the clock as it is."""
        session = self._session
        now, old = session.now(), session.minter().ca
        try:
            check_coverage(session.policy(), new)
        except PolicyError as e:
            self._failed(tuple(str(e).splitlines()))
            return
        session.ca_problems = ()
        if new == old:
            self._nothing_waits()
            return
        bundle = self._bundle if self._mounted.bundle is not None else None
        decided = decide(old, new, bundle, self._mounted.overlap, now, readable=self._readable)
        if isinstance(decided, Wait):
            self._wait(old, new, decided)
            return
        self._nothing_waits()
        if decided.reason is RotationReason.NO_TRUST_BUNDLE:
            _log.warning(
                "the new CA %s has another root, and is used at once: without --trust-bundle the sidecar can't know "
                "whether the workload trusts it",
                new.common_name,
            )
        session.rotate(new, decided)

    def _nothing_waits(self) -> None:
        self._session.ca_pending = self._told = None

    def _wait(self, old: SessionCa, new: SessionCa, decided: Wait) -> None:
        detail = _DETAILS[decided.reason](self._mounted, f"{decided.until:%FT%TZ}")
        self._session.ca_pending = f"the new CA {new.common_name!r} isn't used yet: {detail}"
        if self._told == (told := (new, decided)):
            return
        self._told = told
        self._session.log.emit(
            CaRotationPending(
                subject=new.certificate.subject.rfc4514_string(),
                fingerprint_sha256=new.fingerprint(),
                old_fingerprint_sha256=old.fingerprint(),
                reason=decided.reason,
                until=decided.until.isoformat(),
                detail=detail,
            )
        )

    def _failed(self, problems: tuple[str, ...]) -> None:
        self._nothing_waits()
        if problems == self._session.ca_problems:
            return
        self._session.ca_problems = problems
        kept = self._session.minter().ca.fingerprint()
        self._session.log.emit(CaReloadFailed(source=str(self._mounted.ca), problems=problems, fingerprint_sha256=kept))

    async def _read_ca(self) -> SessionCa:
        """The CA that is mounted; what isn't one, and hasn't been found out before, is given time to become one."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._patience
        while True:
            try:
                return await asyncio.to_thread(load_ca, self._mounted.ca, self._session.now())
            except SidecarError as e:
                if self._session.ca_problems == (str(e),) or loop.time() >= deadline:
                    raise
            await asyncio.sleep(AGAIN_SECONDS)

    async def _read_bundle(self) -> None:
        if (path := self._mounted.bundle) is None:
            return
        try:
            certificates = set(await asyncio.to_thread(read_bundle, path))
            while self._bundle.keys() - certificates:
                # Withdrawn, or not written yet: a bundle that is written in place has its roots one after the other.
                await asyncio.sleep(STEADY_SECONDS)
                before, certificates = certificates, set(await asyncio.to_thread(read_bundle, path))
                if certificates == before:
                    break
        except SidecarError as e:
            if self._readable:
                _log.warning("%s", e)
            self._readable = False
        else:
            self._bundle, self._readable = seen(self._bundle, certificates, self._session.now()), True


def read_bundle(path: Path) -> tuple[x509.Certificate, ...]:
    """
    The certificates of a trust bundle.

    Raises:
        PemError: The file holds none, or broken ones.
        CannotRun: It can't be read.
    """
    try:
        return certificates_in(path.read_bytes(), str(path))
    except OSError as e:
        text = f"{path}: {e.strerror}; mount the bundle that the workload sees, readable for this user"
        raise CannotRun(text) from None


_DETAILS: dict[PendingReason, Callable[[Mounted, str], str]] = {
    PendingReason.OVERLAP: lambda m, until: f"{m.bundle} holds both roots; it takes over at {until}",
    PendingReason.NEW_ROOT_MISSING: lambda m, until: (
        f"its root isn't in {m.bundle}; add it there. The old CA ends at {until}"
    ),
    PendingReason.BUNDLE_UNREADABLE: lambda m, until: (
        f"{m.bundle} can't be read as certificates; the old CA ends at {until}"
    ),
}
