"""Which sessions are kept, and for how long."""

import time
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from OpenSSL import SSL

from sidecar.hosts import parse_host
from sidecar.pki.leaf import LeafMinter
from sidecar.pki.session_ca import SessionCa, issue_session_ca
from sidecar.upstreams.handshake import connection_to, is_resumed, make_context, session_of
from sidecar.upstreams.sessions import MAX_SECONDS, Destination, Kept, Sessions
from sidecar.upstreams.trust import Trust

HOST = parse_host("a.test")


def shake(server: SSL.Context, client: SSL.Context, resumed: Kept | None = None) -> SSL.Connection:
    """A handshake in memory, and one byte from the server, which its tickets come before."""
    ours, theirs = connection_to(HOST, client, (b"http/1.1",), lambda _: None, resumed), SSL.Connection(server)
    theirs.set_accept_state()
    for _ in range(4):
        for one, other in ((ours, theirs), (theirs, ours)):
            with suppress(SSL.WantReadError):
                one.do_handshake()
            with suppress(SSL.WantReadError):
                other.bio_write(one.bio_read(65_536))
    theirs.send(b"x")
    ours.bio_write(theirs.bio_read(65_536))
    assert ours.recv(1) == b"x"
    return ours


def server_of(ca: SessionCa, lifetime: timedelta) -> SSL.Context:
    minter = LeafMinter(ca, lambda: datetime.now(UTC), lifetime=lifetime)
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    context.set_session_id(b"test")
    context.use_certificate(minter.mint(HOST))
    context.use_privatekey(minter.key)
    return context


@pytest.fixture(scope="module")
def ca() -> SessionCa:
    return issue_session_ca(common_name="root", now=datetime.now(UTC))


def client_of(trust: Trust) -> SSL.Context:
    return make_context(trust, lambda _: None)


@pytest.mark.parametrize(
    ("lifetime", "seconds"),
    [
        pytest.param(timedelta(minutes=5), 300, id="no longer than its certificate is valid"),
        pytest.param(timedelta(days=1), MAX_SECONDS, id="no longer than an hour"),
    ],
)
def test_a_session_is_kept(ca: SessionCa, lifetime: timedelta, seconds: float) -> None:
    client, server = client_of(Trust(roots=(ca.certificate,))), server_of(ca, lifetime)
    began = time.time()

    kept = session_of(shake(server, client))

    assert kept is not None
    assert began + seconds - 2 < kept.until < time.time() + seconds + 2


def test_a_resumption_does_not_count_as_a_verification(ca: SessionCa) -> None:
    client, server = client_of(Trust(roots=(ca.certificate,))), server_of(ca, timedelta(days=1))
    kept = session_of(shake(server, client))
    assert kept is not None
    kept = replace(kept, until=kept.until - 1000)

    again = shake(server, client, kept)

    assert is_resumed(again)
    found = session_of(again)
    assert found is not None and found.until == kept.until


def test_nothing_is_kept_where_a_revocation_list_is_asked(ca: SessionCa) -> None:
    now = datetime.now(UTC)
    crl = x509.CertificateRevocationListBuilder().issuer_name(ca.certificate.subject)
    crl = crl.last_update(now - timedelta(hours=1)).next_update(now + timedelta(hours=1))
    trust = Trust(roots=(ca.certificate,), crls=(crl.sign(ca.key, hashes.SHA256()),))

    upstream = shake(server_of(ca, timedelta(days=1)), client_of(trust))

    assert session_of(upstream) is None


def test_a_session_is_given_once_and_not_after_its_time(ca: SessionCa) -> None:
    client = client_of(Trust(roots=(ca.certificate,)))
    kept = session_of(shake(server_of(ca, timedelta(days=1)), client))
    assert kept is not None
    sessions, here = Sessions(2), Destination("a.test", 443, ("192.0.2.1", 443), (b"http/1.1",), client)

    sessions.keep(here, kept)
    assert sessions.take(here, kept.until - 1) is kept
    assert sessions.take(here, kept.until - 1) is None
    sessions.keep(here, kept)
    assert sessions.take(here, kept.until) is None


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"host": "b.test"}, id="another name"),
        pytest.param({"port": 444}, id="another port"),
        pytest.param({"address": ("192.0.2.2", 443)}, id="another address"),
        pytest.param({"offers": (b"h2", b"http/1.1")}, id="another offer of protocols"),
        pytest.param({"context": SSL.Context(SSL.TLS_CLIENT_METHOD)}, id="another trust or identity"),
    ],
)
def test_a_session_is_not_for(ca: SessionCa, change: dict[str, object]) -> None:
    client = client_of(Trust(roots=(ca.certificate,)))
    kept = session_of(shake(server_of(ca, timedelta(days=1)), client))
    assert kept is not None
    sessions, here = Sessions(2), Destination("a.test", 443, ("192.0.2.1", 443), (b"http/1.1",), client)
    sessions.keep(here, kept)

    assert sessions.take(replace(here, **change), 0) is None  # type: ignore[arg-type]


def test_the_oldest_of_too_many_goes(ca: SessionCa) -> None:
    client = client_of(Trust(roots=(ca.certificate,)))
    kept = session_of(shake(server_of(ca, timedelta(days=1)), client))
    assert kept is not None
    sessions = Sessions(2)

    for port in (1, 2, 3):
        sessions.keep(Destination("a.test", port, ("192.0.2.1", port), (), client), kept)

    assert len(sessions) == 2
    assert sessions.take(Destination("a.test", 1, ("192.0.2.1", 1), (), client), 0) is None
