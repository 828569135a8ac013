"""
May a new CA sign from now on? Decided from the two CAs, what the workload trusts, and since when.

Under the same root the answer is yes at once: every client builds the path to it. A new root is for clients that have
read a trust bundle with it, and a client reads the bundle when it starts. So both roots stand in the bundle for a
while first; unless the old one was withdrawn (its key has leaked, say), or nobody accepts it any more.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from sidecar.pki.session_ca import SessionCa
from sidecar.reasons import PendingReason, RotationReason

OVERLAP = timedelta(days=1)

type Since = Mapping[x509.Certificate, datetime]
"""The certificates of the trust bundle, each with the moment from which it has been there without a break."""


@dataclass(frozen=True, slots=True)
class Take:
    """The new CA signs from now on."""

    reason: RotationReason

    @property
    def root_changed(self) -> bool:
        return self.reason is not RotationReason.SAME_ROOT


@dataclass(frozen=True, slots=True)
class Wait:
    """The old CA goes on."""

    reason: PendingReason
    until: datetime  # when the new one is taken at the latest, if nothing changes


def decide(
    old: SessionCa, new: SessionCa, bundle: Since | None, overlap: timedelta, now: datetime, *, readable: bool = True
) -> Take | Wait:
    """
    Say whether *new* may replace *old*.

    Args:
        old: The CA that signs.
        new: A valid one.
        bundle: What the workload trusts, and since when; None where that isn't known at all.
        overlap: How long the bundle must have held both roots.
        now: Aware, UTC.
        readable: The bundle could be read, the last time. If not, *bundle* isn't looked at.

    Returns:
        `Take`, or `Wait` with the moment at which *old* or the overlap ends.
    """
    held = list(bundle or ()) if readable else []
    if is_anchor(old.root, new) or any(is_anchor(root, old) and is_anchor(root, new) for root in held):
        return Take(RotationReason.SAME_ROOT)
    if now >= old.not_after:
        return Take(RotationReason.OLD_CA_EXPIRED)
    if not readable:
        return Wait(PendingReason.BUNDLE_UNREADABLE, old.not_after)
    if bundle is None:
        return Take(RotationReason.NO_TRUST_BUNDLE)
    if (new_since := _since(bundle, new)) is None:
        return Wait(PendingReason.NEW_ROOT_MISSING, old.not_after)
    if (old_since := _since(bundle, old)) is None:
        return Take(RotationReason.OLD_ROOT_WITHDRAWN)
    both_until = max(old_since, new_since) + overlap
    if now >= both_until:
        return Take(RotationReason.OVERLAP_OVER)
    return Wait(PendingReason.OVERLAP, min(both_until, old.not_after))


def seen(before: Since, bundle: Iterable[x509.Certificate], now: datetime) -> Since:
    """The bundle as it is *now*: what was in it *before* keeps its moment, what has left it loses it."""
    return {certificate: before.get(certificate, now) for certificate in bundle}


def is_anchor(root: x509.Certificate, ca: SessionCa) -> bool:
    """Whether who trusts *root* accepts leaves of *ca*: it is its root, by name and key, or has issued its chain."""
    if root.subject == ca.root.subject and _key(root) == _key(ca.root) is not None:
        return True
    top = ca.chain[-1]
    if top.issuer != root.subject:
        return False
    try:
        top.verify_directly_issued_by(root)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return True


def _since(bundle: Since, ca: SessionCa) -> datetime | None:
    """Since when the bundle has held a root of *ca*; None if it holds none."""
    return min((since for root, since in bundle.items() if is_anchor(root, ca)), default=None)


def _key(certificate: x509.Certificate) -> bytes | None:
    try:
        return certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    except (ValueError, UnsupportedAlgorithm):
        return None
