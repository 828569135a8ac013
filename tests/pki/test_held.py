from dataclasses import replace
from datetime import timedelta

import pytest

from sidecar.hosts import parse_host
from sidecar.pki import SessionCa, issue_session_ca
from sidecar.pki.held import Held, ours, why_renew
from sidecar.pki.pem import to_pem
from sidecar.pki.serving import KeyType, Serving, ServingError, Usage, Wish, issue_serving
from tests.pki.authorities import DAY, NOW, Authority, authority

WISH = Wish(hosts=(parse_host("web"), parse_host("10.1.2.3")))
CA = issue_session_ca(common_name="session-7", now=NOW, validity=365 * DAY)
OTHER = issue_session_ca(common_name="session-8", now=NOW)
ROOT = authority("root", path_length=1, end=NOW + 3650 * DAY)


def intermediate(name: str = "intermediate") -> SessionCa:
    made = authority(name, ROOT, path_length=0, end=NOW + 365 * DAY)
    return SessionCa(made.key, (made.certificate,), ROOT.certificate)


def held(serving: Serving, root: bytes | None = None) -> Held:
    return Held(serving.certificate_pem(), serving.key_pem(), root)


def test_nothing_is_there_and_so_nothing_is_ours() -> None:
    assert ours(Held(None, None, None), CA) is None
    assert ours(Held(None, None, CA.root_pem()), CA) is None


def test_a_pair_of_this_ca_is_ours() -> None:
    serving = issue_serving(CA, WISH, NOW)

    assert ours(held(serving), CA) == serving
    assert why_renew(serving, CA, WISH, NOW) is None


def test_a_pair_of_a_former_intermediate_under_the_same_root_is_ours_and_due() -> None:
    before, after = intermediate(), intermediate("next")
    serving = issue_serving(before, WISH, NOW)

    assert ours(held(serving), after) == serving
    assert why_renew(serving, after, WISH, NOW) == "the CA's certificate has changed"


FOREIGN = issue_serving(OTHER, WISH, NOW)
OURS = issue_serving(CA, WISH, NOW)
IMPOSTOR: Authority = authority("session-7")


@pytest.mark.parametrize(
    ("there", "says"),
    [
        pytest.param(held(FOREIGN), "tls.crt was issued by 'session-8', not under the root of 'session-7'", id="CA"),
        pytest.param(
            held(issue_serving(SessionCa(IMPOSTOR.key, (IMPOSTOR.certificate,), IMPOSTOR.certificate), WISH, NOW)),
            "tls.crt was issued by 'session-7', not under",
            id="a CA of the same name",
        ),
        pytest.param(
            replace(held(OURS), certificate=to_pem([OURS.certificate, OTHER.certificate])),
            "not under the root",
            id="a chain that doesn't belong together",
        ),
        pytest.param(replace(held(OURS), key=FOREIGN.key_pem()), "tls.key does not belong to tls.crt", id="key"),
        pytest.param(replace(held(OURS), key=None), "tls.crt is there without tls.key", id="no key"),
        pytest.param(replace(held(OURS), certificate=None), "tls.key is there without tls.crt", id="no certificate"),
        pytest.param(replace(held(OURS), certificate=b"notes"), "tls.crt holds no certificate", id="no PEM"),
        pytest.param(replace(held(OURS), certificate=b""), "tls.crt is empty", id="an empty file"),
        pytest.param(replace(held(OURS), key=b"notes"), "tls.key holds no private key", id="no key in it"),
        pytest.param(Held(None, None, OTHER.root_pem()), "ca.crt is there, and isn't this CA's root", id="a root"),
    ],
)
def test_what_somebody_else_has_made_is_refused_by_name(there: Held, says: str) -> None:
    with pytest.raises(ServingError, match=f"{says}.*--force"):
        ours(there, CA)


def test_refusals_show_nothing_of_a_key() -> None:
    lines = FOREIGN.key_pem().decode().splitlines()

    with pytest.raises(ServingError) as raised:
        ours(replace(held(OURS), key=FOREIGN.key_pem()[:150]), CA)

    assert not any(line in str(raised.value) for line in lines if len(line) > 8)


@pytest.mark.parametrize(
    ("wish", "because"),
    [
        pytest.param(replace(WISH, hosts=WISH.hosts[::-1]), None, id="another order is no difference"),
        pytest.param(
            replace(WISH, hosts=(*WISH.hosts, parse_host("fd00::3"))), "it doesn't name fd00::3", id="an address more"
        ),
        pytest.param(replace(WISH, hosts=WISH.hosts[:1]), "it names 10.1.2.3, too", id="an address less"),
        pytest.param(
            replace(WISH, hosts=(WISH.hosts[0], parse_host("10.9.9.9"))),
            "it names 10.1.2.3, too, it doesn't name 10.9.9.9",
            id="the pod has another address",
        ),
        pytest.param(replace(WISH, usage=Usage.SERVER), "its usage isn't server", id="usage"),
        pytest.param(replace(WISH, key_type=KeyType.RSA2048), "its key isn't rsa-2048", id="key"),
        pytest.param(replace(WISH, validity=30 * DAY), None, id="a shorter life is no reason"),
    ],
)
def test_another_wish_renews(wish: Wish, because: str | None) -> None:
    assert why_renew(OURS, CA, wish, NOW) == because


@pytest.mark.parametrize(
    ("later", "renewed"),
    [
        pytest.param(timedelta(0), False, id="new"),
        pytest.param(59 * DAY, False, id="with more than a third of its life left"),
        pytest.param(61 * DAY, True, id="with less"),
        pytest.param(91 * DAY, True, id="expired"),
        pytest.param(-2 * DAY, True, id="not yet valid: a clock was wrong"),
    ],
)
def test_age_renews(later: timedelta, renewed: bool) -> None:
    assert (why_renew(OURS, CA, WISH, NOW + later) is not None) is renewed


def test_age_does_not_renew_what_would_end_no_later() -> None:
    day = issue_session_ca(common_name="day", now=NOW)
    serving = issue_serving(day, WISH, NOW)

    assert why_renew(serving, day, WISH, NOW + timedelta(hours=24)) is None


def test_a_chain_that_has_changed_renews() -> None:
    ca = intermediate()

    assert why_renew(replace(issue_serving(ca, WISH, NOW), chain=()), ca, WISH, NOW) is not None
