"""The policy's `upstreams`: roots, client certificates, revocation lists per host, and what it may accept of one."""

import socket
import ssl
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509 import ocsp
from OpenSSL import SSL

from tests.live.inprocess import InProcess, in_process
from tests.live.tls_upstream import (
    DAY,
    MUST_STAPLE,
    OCSP_SIGNING,
    Served,
    answering,
    certificate,
    revocation_list,
    rsa_key,
    staple,
    write,
)
from tests.pki.authorities import Authority

pytestmark = pytest.mark.live

ALLOWED = "version: 1\ndefault: allow\nnetwork: {allow_addresses: [127.0.0.0/8]}\nupstreams:\n"
ROOT = certificate("upstream root", ca=True)
NAMES = ("a.test", "b.test", "other.test")
VERSIONS = pytest.mark.parametrize("version", [SSL.TLS1_2_VERSION, SSL.TLS1_3_VERSION], ids=["1.2", "1.3"])


def get(sidecar: InProcess, port: int, host: str = "a.test") -> str:
    """The answer to one request."""
    context = ssl.create_default_context(cafile=str(sidecar.bundle))
    with socket.create_connection(("127.0.0.1", sidecar.port), 10) as raw:
        raw.settimeout(10)
        raw.sendall(f"CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n".encode())
        assert b" 200 " in raw.recv(65536)
        with context.wrap_socket(raw, server_hostname=host) as connection:
            connection.sendall(f"GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
            data = b""
            while piece := connection.recv(65536):
                data += piece
            return data.decode()


@contextmanager
def sidecar_with(folder: Path, *entries: str) -> Iterator[InProcess]:
    """A sidecar that trusts ROOT, and has these entries under `upstreams`."""
    policy = ALLOWED + "".join(f"  - {entry}\n" for entry in entries or ("{hosts: [z.test], accept: [cbc]}",))
    with in_process(folder, policy, upstream_ca=write(folder / "root.pem", ROOT), names=NAMES) as sidecar:
        yield sidecar


def refused(sidecar: InProcess, port: int, served: Served, *, says: str, hint: str, host: str = "a.test") -> None:
    answer = get(sidecar, port, host)

    assert " 502 " in answer
    assert served.requests == []
    event = sidecar.event("tls_handshake_failed", side="server", host=host)
    assert says in event["detail"]
    assert hint in event["hint"]


# What is refused unless it is accepted: the option, the chain, and how the server shakes hands.
FLAWS = [
    pytest.param("ca_leaf", [certificate("a.test", ROOT, ca=True)], {}, "is a CA's", id="a CA's certificate"),
    pytest.param("long_lived", [certificate("a.test", ROOT, days=3650)], {}, "valid for 3650 days", id="ten years"),
    pytest.param(
        "missing_staple",
        [certificate("a.test", ROOT, MUST_STAPLE)],
        {"version": SSL.TLS1_2_VERSION},
        "must-staple",
        id="must-staple, nothing stapled, TLS 1.2",
    ),
    pytest.param(
        "missing_staple",
        [certificate("a.test", ROOT, MUST_STAPLE)],
        {"version": SSL.TLS1_3_VERSION},
        "must-staple",
        id="must-staple, nothing stapled, TLS 1.3",
    ),
    pytest.param(
        "static_rsa",
        [certificate("a.test", ROOT, key=rsa_key())],
        {"version": SSL.TLS1_2_VERSION, "ciphers": "AES128-GCM-SHA256"},
        "handshake failure",
        id="static RSA",
    ),
    pytest.param(
        "cbc",
        [certificate("a.test", ROOT)],
        {"version": SSL.TLS1_2_VERSION, "ciphers": "ECDHE-ECDSA-AES128-SHA"},
        "handshake failure",
        id="CBC",
    ),
    pytest.param(
        "static_rsa, cbc",
        [certificate("a.test", ROOT, key=rsa_key())],
        {"version": SSL.TLS1_2_VERSION, "ciphers": "AES256-SHA"},
        "handshake failure",
        id="static RSA with CBC",
    ),
]


@pytest.mark.parametrize(("option", "chain", "how", "says"), FLAWS)
def test_a_flaw_is_refused_with_a_hint_at_its_option(
    option: str, chain: Sequence[Authority], how: dict[str, object], says: str, tmp_path: Path
) -> None:
    others = {"ca_leaf", "long_lived", "missing_staple", "static_rsa", "cbc"} - set(option.split(", "))
    entry = f"{{hosts: [a.test], accept: [{', '.join(sorted(others))}]}}"  # each but the one that it takes

    with answering(chain, **how) as (port, served), sidecar_with(tmp_path, entry) as sidecar:  # type: ignore[arg-type]
        refused(sidecar, port, served, says=says, hint=f"[{option.partition(',')[0]}]")


@pytest.mark.parametrize(("option", "chain", "how", "says"), FLAWS)
def test_a_flaw_is_accepted_for_the_hosts_of_an_entry_alone(
    option: str, chain: Sequence[Authority], how: dict[str, object], says: str, tmp_path: Path
) -> None:
    entry = f"{{hosts: [a.test], accept: [{option}]}}"

    with answering(chain, **how) as (port, served), sidecar_with(tmp_path, entry) as sidecar:  # type: ignore[arg-type]
        assert "hello" in get(sidecar, port)
        assert len(served.requests) == 1
        assert not sidecar.events("tls_handshake_failed")

        assert " 502 " in get(sidecar, port, "b.test")
        assert len(served.requests) == 1


STRANGER = certificate("another root", ca=True)
EXPIRED = certificate("a.test", ROOT, days=0)
CONSTRAINED = certificate("constrained", ROOT, x509.NameConstraints([x509.DNSName("b.test")], None), ca=True)


@pytest.mark.parametrize(
    ("chain", "reason"),
    [
        pytest.param([certificate("a.test", STRANGER)], "tls_upstream_certificate", id="another root"),
        pytest.param([certificate("b.test", ROOT)], "tls_upstream_name", id="another name"),
        pytest.param([EXPIRED], "tls_upstream_certificate", id="expired"),
        pytest.param([certificate("a.test")], "tls_upstream_certificate", id="self-signed"),
        pytest.param([certificate("a.test", CONSTRAINED), CONSTRAINED], "tls_upstream_certificate", id="constraints"),
    ],
)
def test_no_option_relaxes_chain_name_or_validity(chain: Sequence[Authority], reason: str, tmp_path: Path) -> None:
    everything = "{hosts: [a.test], accept: [ca_leaf, missing_staple, long_lived, static_rsa, cbc]}"

    with answering(chain) as (port, served), sidecar_with(tmp_path, everything) as sidecar:
        assert " 502 " in get(sidecar, port)

        assert served.requests == []
        event = sidecar.event("tls_handshake_failed", side="server", reason=reason)
        assert "accept" not in event["hint"]


LEAF = certificate("a.test", ROOT, MUST_STAPLE)
PLAIN = certificate("a.test", ROOT)
RESPONDER = certificate("responder", ROOT, OCSP_SIGNING)


@VERSIONS
@pytest.mark.parametrize("by", [None, RESPONDER], ids=["the issuer", "its responder"])
def test_a_good_staple_is_enough_for_must_staple(by: Authority | None, version: int, tmp_path: Path) -> None:
    response = staple(LEAF, ROOT, by=by)

    with answering([LEAF], stapled=response, version=version) as (port, _), sidecar_with(tmp_path) as sidecar:
        assert "hello" in get(sidecar, port)


@VERSIONS
@pytest.mark.parametrize(
    ("response", "says"),
    [
        pytest.param(staple(LEAF, ROOT, begin=-3 * DAY, end=-DAY), "it expired", id="expired"),
        pytest.param(staple(LEAF, ROOT, by=certificate("anyone", ROOT)), "isn't signed", id="by any certificate"),
        pytest.param(b"\x30\x03\x0a\x01\x03", "try_later", id="the responder's own failure"),
    ],
)
def test_a_staple_that_proves_nothing_is_a_missing_one(
    response: bytes, says: str, version: int, tmp_path: Path
) -> None:
    with answering([LEAF], stapled=response, version=version) as (port, served), sidecar_with(tmp_path) as sidecar:
        refused(sidecar, port, served, says=says, hint="[missing_staple]")


@VERSIONS
@pytest.mark.parametrize("leaf", [LEAF, PLAIN], ids=["must-staple", "a certificate that asks for none"])
def test_a_staple_that_says_revoked_is_never_accepted(leaf: Authority, version: int, tmp_path: Path) -> None:
    response = staple(leaf, ROOT, status=ocsp.OCSPCertStatus.REVOKED)
    entry = "{hosts: [a.test], accept: [missing_staple]}"

    with answering([leaf], stapled=response, version=version) as (port, served), sidecar_with(tmp_path, entry) as one:
        refused(one, port, served, says="revoked", hint="taken it back")


@pytest.mark.parametrize("key", ["roots", "add_roots"])
def test_a_private_root_is_trusted_for_its_hosts_alone(key: str, tmp_path: Path) -> None:
    write(tmp_path / "private.pem", STRANGER)

    with (
        answering([certificate("a.test", STRANGER)]) as (port, served),
        sidecar_with(tmp_path, f"{{hosts: [a.test], {key}: private.pem}}") as sidecar,
    ):
        assert "hello" in get(sidecar, port)
    with (
        answering([certificate("b.test", STRANGER)]) as (port, served),
        sidecar_with(tmp_path, f"{{hosts: [a.test], {key}: private.pem}}") as sidecar,
    ):
        refused(sidecar, port, served, says="verify failed", hint="--add-upstream-ca", host="b.test")


@pytest.mark.parametrize(("key", "answer"), [("roots", " 502 "), ("add_roots", "hello")])
def test_roots_stand_instead_of_the_sidecars_and_add_roots_besides(key: str, answer: str, tmp_path: Path) -> None:
    write(tmp_path / "private.pem", STRANGER)

    with (
        answering([PLAIN]) as (port, _),
        sidecar_with(tmp_path, f"{{hosts: [a.test], {key}: private.pem}}") as sidecar,
    ):
        assert answer in get(sidecar, port)


CLIENT_ROOT = certificate("client root", ca=True)
CLIENT_CA = certificate("client intermediate", CLIENT_ROOT, ca=True)
CLIENT = certificate("workload-7", CLIENT_CA)
SHOWS = "{hosts: [a.test], client_certificate: {certificate: tls.crt, key: secret/tls.key}}"


def client_files(folder: Path, client: Authority = CLIENT) -> Path:
    """The pair as a Secret has it, and the root by which the upstream knows it."""
    (folder / "secret").mkdir(exist_ok=True)
    (folder / "secret" / "tls.key").write_bytes(client.key_pem)
    write(folder / "tls.crt", client, CLIENT_CA)
    return write(folder / "client-root.pem", CLIENT_ROOT)


@VERSIONS
def test_an_upstream_that_asks_is_shown_the_client_certificate_with_its_chain(version: int, tmp_path: Path) -> None:
    root = client_files(tmp_path)

    with answering([PLAIN], asks=root, version=version) as (port, served), sidecar_with(tmp_path, SHOWS) as sidecar:
        assert "hello" in get(sidecar, port)

    assert served.clients == ["workload-7"]


@VERSIONS
def test_no_other_host_is_shown_it_even_if_it_asks(version: int, tmp_path: Path) -> None:
    root = client_files(tmp_path)

    with (
        answering([certificate("b.test", ROOT)], asks=root, insists=False, version=version) as (port, served),
        sidecar_with(tmp_path, SHOWS) as sidecar,
    ):
        assert "hello" in get(sidecar, port, "b.test")

    assert served.clients == [None]


@pytest.mark.parametrize(
    ("version", "reason"),
    [
        pytest.param(SSL.TLS1_2_VERSION, "tls_upstream_ciphers", id="1.2, where the alert doesn't say what is wrong"),
        pytest.param(SSL.TLS1_3_VERSION, "tls_upstream_client_certificate", id="1.3, where it comes late"),
    ],
)
def test_an_upstream_that_insists_on_a_client_certificate_is_diagnosed(
    version: int, reason: str, tmp_path: Path
) -> None:
    root = client_files(tmp_path)

    with answering([PLAIN], asks=root, version=version) as (port, served), sidecar_with(tmp_path) as sidecar:
        assert " 502 " in get(sidecar, port)

        assert served.requests == []
        assert "client certificate" in sidecar.event("tls_handshake_failed", side="server", reason=reason)["hint"]


@VERSIONS
def test_an_upstream_that_refuses_the_client_certificate_is_diagnosed(version: int, tmp_path: Path) -> None:
    client_files(tmp_path)
    asks = write(tmp_path / "strangers.pem", STRANGER)

    with (
        answering([PLAIN], asks=asks, version=version) as (port, served),
        sidecar_with(tmp_path, SHOWS) as sidecar,
    ):
        assert " 502 " in get(sidecar, port)

        assert served.requests == []
        event = sidecar.event("tls_handshake_failed", side="server", reason="tls_upstream_client_certificate")
        assert event["alert"] == "unknown_ca"


def test_the_clients_key_is_in_no_event(tmp_path: Path) -> None:
    root = client_files(tmp_path)

    with answering([PLAIN], asks=root) as (port, _), sidecar_with(tmp_path, SHOWS) as sidecar:
        get(sidecar, port)
        shown = str(sidecar.events()) + repr(sidecar.session.upstreams)

    secret = CLIENT.key_pem.decode().splitlines()[1]
    assert secret not in shown
    assert "PRIVATE KEY" not in shown


MIDDLE = certificate("middle", ROOT, ca=True)
UNDER = certificate("a.test", MIDDLE)
LISTED = "{hosts: [a.test], crl: crl.pem}"


@pytest.mark.parametrize(
    ("lists", "says", "hint"),
    [
        pytest.param([revocation_list(ROOT), revocation_list(MIDDLE, UNDER)], "revoked", "taken it back", id="leaf"),
        pytest.param([revocation_list(ROOT, MIDDLE), revocation_list(MIDDLE)], "revoked", "taken", id="intermediate"),
        pytest.param([revocation_list(MIDDLE)], "upstream root", "every CA of the chain", id="no list of the root"),
        pytest.param([revocation_list(ROOT)], "CN=middle", "every CA of the chain", id="no list of the issuer"),
        pytest.param(
            [revocation_list(ROOT), revocation_list(MIDDLE, end=-DAY)], "CRL has expired", "current list", id="expired"
        ),
        pytest.param(
            [revocation_list(ROOT), revocation_list(certificate("middle", ROOT, ca=True))],
            "CRL",
            "current list",
            id="a list of another CA of that name",
        ),
    ],
)
def test_what_a_revocation_list_does_not_clear_is_refused(
    lists: list[bytes], says: str, hint: str, tmp_path: Path
) -> None:
    (tmp_path / "crl.pem").write_bytes(b"".join(lists))

    with answering([UNDER, MIDDLE]) as (port, served), sidecar_with(tmp_path, LISTED) as sidecar:
        refused(sidecar, port, served, says=says, hint=hint)


def test_what_a_revocation_list_clears_is_let_through_and_others_are_not_asked_for_one(tmp_path: Path) -> None:
    other = certificate("other.test", MIDDLE)
    (tmp_path / "crl.pem").write_bytes(revocation_list(ROOT) + revocation_list(MIDDLE, other))

    with answering([UNDER, MIDDLE]) as (port, _), sidecar_with(tmp_path, LISTED) as sidecar:
        assert "hello" in get(sidecar, port)
    with answering([other, MIDDLE]) as (port, _), sidecar_with(tmp_path, LISTED) as sidecar:
        assert "hello" in get(sidecar, port, "other.test")


def test_the_first_entry_that_names_a_host_counts(tmp_path: Path) -> None:
    entries = ("{hosts: [a.test], accept: [cbc]}", "{hosts: ['*.test'], accept: [long_lived]}")
    for host, answer in (("a.test", " 502 "), ("b.test", "hello")):
        chain = [certificate(host, ROOT, days=4000)]
        with answering(chain) as (port, _), sidecar_with(tmp_path, *entries) as sidecar:
            assert answer in get(sidecar, port, host)


def test_the_bound_is_ten_years_of_365_days(tmp_path: Path) -> None:
    chain = [certificate("a.test", ROOT, days=3649)]

    with answering(chain) as (port, _), sidecar_with(tmp_path) as sidecar:
        assert "hello" in get(sidecar, port)
