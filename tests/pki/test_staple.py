"""What a stapled OCSP response proves of a certificate, and what it doesn't."""

from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.x509 import ocsp
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.pki.staple import Staple, judge_staple, wants_staple
from tests.live.tls_upstream import DAY, MUST_STAPLE, OCSP_SIGNING, certificate, rsa_key, staple
from tests.pki.authorities import Authority

NOW = datetime.now(UTC)  # as the responses below have it
ROOT = certificate("root", ca=True)
RSA_ROOT = certificate("root with RSA", ca=True, key=rsa_key())
LEAF = certificate("a.test", ROOT)
MINUTE = timedelta(minutes=1)
SIBLING = certificate("b.test", ROOT)
LAPSED = certificate("responder", ROOT, OCSP_SIGNING, days=0)
GOOD = staple(LEAF, ROOT)
TAMPERED = GOOD[:-1] + bytes([GOOD[-1] ^ 1])  # the signature's last bit


def judged(response: bytes, leaf: Authority = LEAF, issuer: Authority = ROOT) -> tuple[Staple, str]:
    return judge_staple(response, leaf.certificate, issuer.certificate, NOW)


@pytest.mark.parametrize(
    "by",
    [
        pytest.param(None, id="the issuer"),
        pytest.param(certificate("responder", ROOT, OCSP_SIGNING), id="a responder that the issuer delegates to"),
        pytest.param(certificate("responder", ROOT, OCSP_SIGNING, key=rsa_key()), id="one with an RSA key"),
    ],
)
def test_a_response_by_those_who_may_is_good(by: Authority | None) -> None:
    assert judged(staple(LEAF, ROOT, by=by)) == (Staple.GOOD, "")


def test_an_rsa_issuers_own_response_is_good() -> None:
    leaf = certificate("a.test", RSA_ROOT)

    assert judged(staple(leaf, RSA_ROOT), leaf, RSA_ROOT)[0] is Staple.GOOD


@pytest.mark.parametrize(
    ("response", "why"),
    [
        pytest.param(b"", "none came", id="none"),
        pytest.param(b"garbage", "can't be parsed", id="garbage"),
        pytest.param(b"\x30\x03\x0a\x01\x03", "try_later", id="the responder's failure"),
        pytest.param(staple(SIBLING, ROOT), "another certificate", id="another certificate's"),
        pytest.param(staple(LEAF, ROOT, begin=-3 * DAY, end=-6 * MINUTE), "expired", id="expired"),
        pytest.param(staple(LEAF, ROOT, begin=6 * MINUTE, end=DAY), "isn't valid before", id="not yet valid"),
        pytest.param(staple(LEAF, ROOT, end=None), "how long", id="without an end"),
        pytest.param(staple(LEAF, ROOT, status=ocsp.OCSPCertStatus.UNKNOWN), "doesn't know", id="unknown"),
        pytest.param(staple(LEAF, ROOT, by=SIBLING), "isn't signed", id="by a sibling, without the usage"),
        pytest.param(
            staple(LEAF, ROOT, by=certificate("b", certificate("root", ca=True), OCSP_SIGNING)),
            "isn't signed",
            id="by another CA's responder",
        ),
        pytest.param(staple(LEAF, ROOT, by=LAPSED), "isn't signed", id="by one that expired"),
        pytest.param(TAMPERED, "isn't signed", id="changed on its way"),
        pytest.param(staple(LEAF, certificate("root", ca=True)), "isn't signed", id="by a CA that only has the name"),
    ],
)
def test_a_response_that_proves_nothing(response: bytes, why: str) -> None:
    verdict, said = judged(response)

    assert verdict is Staple.NOTHING
    assert why in said


def test_revoked_is_neither() -> None:
    assert judged(staple(LEAF, ROOT, status=ocsp.OCSPCertStatus.REVOKED))[0] is Staple.REVOKED


@given(at=st.integers(min_value=0), value=st.integers(0, 255))
@settings(max_examples=300, deadline=None)
def test_no_change_of_a_byte_makes_a_bad_response_good(at: int, value: int) -> None:
    revoked = bytearray(staple(LEAF, ROOT, status=ocsp.OCSPCertStatus.REVOKED))
    revoked[at % len(revoked)] = value

    assert judged(bytes(revoked))[0] is not Staple.GOOD


@pytest.mark.parametrize(
    ("extensions", "wants"),
    [
        ((), False),
        ((MUST_STAPLE,), True),
        ((x509.TLSFeature([x509.TLSFeatureType.status_request_v2]),), False),
    ],
)
def test_what_must_staple_is(extensions: tuple[x509.ExtensionType, ...], wants: bool) -> None:
    assert wants_staple(certificate("a.test", ROOT, *extensions).certificate) is wants
