"""May a new CA sign: decided from the CAs, the workload's trust bundle and the time."""

from datetime import datetime, timedelta

import pytest
from cryptography import x509

from sidecar.pki.load import CaText, parse_ca
from sidecar.pki.rotation import Take, Wait, decide, is_anchor, seen
from sidecar.pki.session_ca import SessionCa
from sidecar.reasons import PendingReason, RotationReason
from tests.pki.authorities import DAY, NOW, Authority, authority

HOUR = timedelta(hours=1)
OLD_ROOT, NEW_ROOT, PUBLIC_ROOT = (authority(f"{name} root") for name in ("old", "new", "public"))
END = NOW + 3 * DAY


def ca(issuing: Authority, root: Authority | None) -> SessionCa:
    return parse_ca(CaText(issuing.pem, issuing.key_pem, root.pem if root else None), NOW)


OLD = ca(authority("old", OLD_ROOT, end=END), OLD_ROOT)
NEW = ca(authority("new", NEW_ROOT), NEW_ROOT)
RENEWED = ca(authority("renewed", OLD_ROOT), OLD_ROOT)
ROOTLESS = ca(authority("renewed, without ca.crt", OLD_ROOT), None)
BOTH_ROOTLESS = ca(authority("old, without ca.crt", OLD_ROOT), None)
SAME_KEY = ca(authority("again", again := authority("old root", key=OLD_ROOT.key, end=NOW + 900 * DAY)), again)
OTHER_KEY = ca(authority("posing", posing := authority("old root")), posing)


def bundle(*roots: Authority, since: datetime = NOW - HOUR) -> dict[x509.Certificate, datetime]:
    return {root.certificate: since for root in (PUBLIC_ROOT, *roots)}


WAITS_FOR_OLD_TO_END = Wait(PendingReason.NEW_ROOT_MISSING, END)
OVER = Take(RotationReason.OVERLAP_OVER)


@pytest.mark.parametrize(
    ("new", "trusted", "now", "decided"),
    [
        pytest.param(RENEWED, None, NOW, Take(RotationReason.SAME_ROOT), id="a new intermediate, at once"),
        pytest.param(
            RENEWED, bundle(), NOW, Take(RotationReason.SAME_ROOT), id="at once, whatever the bundle holds"
        ),
        pytest.param(ROOTLESS, bundle(), NOW, Take(RotationReason.SAME_ROOT), id="the old root has signed it"),
        pytest.param(SAME_KEY, bundle(), NOW, Take(RotationReason.SAME_ROOT), id="a renewed root with the same key"),
        pytest.param(
            OTHER_KEY, bundle(OLD_ROOT), NOW, WAITS_FOR_OLD_TO_END, id="the old root's name with another key"
        ),
        pytest.param(NEW, None, NOW, Take(RotationReason.NO_TRUST_BUNDLE), id="nobody knows what is trusted: at once"),
        pytest.param(NEW, bundle(OLD_ROOT), NOW, WAITS_FOR_OLD_TO_END, id="the bundle holds the old root alone"),
        pytest.param(NEW, bundle(), NOW, WAITS_FOR_OLD_TO_END, id="the bundle holds neither"),
        pytest.param(
            NEW, bundle(NEW_ROOT), NOW, Take(RotationReason.OLD_ROOT_WITHDRAWN), id="the new one alone: the leak drill"
        ),
        pytest.param(
            NEW, bundle(OLD_ROOT, NEW_ROOT), NOW, Wait(PendingReason.OVERLAP, NOW + 23 * HOUR), id="both, for an hour"
        ),
        pytest.param(NEW, bundle(OLD_ROOT, NEW_ROOT), NOW + 23 * HOUR, OVER, id="both, for long enough"),
        pytest.param(
            NEW, bundle(OLD_ROOT) | bundle(NEW_ROOT, since=NOW - 2 * DAY), NOW,
            Wait(PendingReason.OVERLAP, NOW + 23 * HOUR),
            id="both counts from the later of the two",
        ),
        pytest.param(
            NEW, bundle(OLD_ROOT, NEW_ROOT, since=END - HOUR), END - HOUR, Wait(PendingReason.OVERLAP, END),
            id="the overlap ends with the old CA",
        ),
        pytest.param(
            NEW, bundle(OLD_ROOT), END, Take(RotationReason.OLD_CA_EXPIRED), id="nobody accepts the old one any more"
        ),
    ],
)  # fmt: skip
def test_a_new_ca(
    new: SessionCa, trusted: dict[x509.Certificate, datetime] | None, now: datetime, decided: Take | Wait
) -> None:
    assert decide(OLD, new, trusted, DAY, now) == decided


def test_without_a_known_root_the_bundle_tells_that_it_is_the_same() -> None:
    assert decide(BOTH_ROOTLESS, ROOTLESS, bundle(OLD_ROOT), DAY, NOW) == Take(RotationReason.SAME_ROOT)
    assert decide(BOTH_ROOTLESS, ROOTLESS, None, DAY, NOW) == Take(RotationReason.NO_TRUST_BUNDLE)


def test_a_bundle_that_cannot_be_read_is_no_withdrawal() -> None:
    before = bundle(NEW_ROOT)

    assert decide(OLD, NEW, before, DAY, NOW, readable=False) == Wait(PendingReason.BUNDLE_UNREADABLE, END)
    assert decide(OLD, RENEWED, before, DAY, NOW, readable=False) == Take(RotationReason.SAME_ROOT)
    assert decide(OLD, NEW, before, DAY, END, readable=False) == Take(RotationReason.OLD_CA_EXPIRED)


def test_only_another_root_is_a_changed_root() -> None:
    assert [reason for reason in RotationReason if not Take(reason).root_changed] == [RotationReason.SAME_ROOT]


def test_a_certificate_that_left_the_bundle_begins_anew() -> None:
    old, new = OLD_ROOT.certificate, NEW_ROOT.certificate

    first = seen({}, [old, new], NOW)
    second = seen(first, [old], NOW + HOUR)
    third = seen(second, [new, old], NOW + 2 * HOUR)

    assert third == {old: NOW, new: NOW + 2 * HOUR}


def test_a_root_is_known_by_name_and_key() -> None:
    assert is_anchor(OLD_ROOT.certificate, OLD)
    assert is_anchor(OLD_ROOT.certificate, ROOTLESS)
    assert not is_anchor(NEW_ROOT.certificate, OLD)
    assert not is_anchor(OLD_ROOT.certificate, OTHER_KEY)
