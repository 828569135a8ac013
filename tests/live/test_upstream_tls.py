"""Both sides' TLS: the upstream must prove the judged name, and no ticket of one name is good for another."""

import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.live.inprocess import InProcess, in_process
from tests.live.upstreams import Root, serving

pytestmark = pytest.mark.live

POLICY = "version: 1\ndefault: allow\nnetwork: {allow_addresses: [127.0.0.0/8]}\n"
NAMES = ("a.test", "b.test", "wrong.test")


@contextmanager
def tls(
    sidecar: InProcess, port: int, host: str, context: ssl.SSLContext, session: ssl.SSLSession | None = None
) -> Iterator[ssl.SSLSocket]:
    with socket.create_connection(("127.0.0.1", sidecar.port), 10) as raw:
        raw.settimeout(10)
        raw.sendall(f"CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n".encode())
        assert b" 200 " in raw.recv(65536)
        with context.wrap_socket(raw, server_hostname=host, session=session) as connection:
            yield connection


def get(connection: ssl.SSLSocket, host: str) -> str:
    connection.sendall(f"GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
    data = b""
    while piece := connection.recv(65536):
        data += piece
    return data.decode()


def test_an_upstream_with_another_names_certificate_gets_no_request(tmp_path: Path) -> None:
    root = Root(tmp_path)
    with (
        serving(root.context("a.test")) as (port, upstream),
        in_process(tmp_path, POLICY, upstream_ca=root.pem, names=NAMES) as sidecar,
    ):
        context = ssl.create_default_context(cafile=str(sidecar.bundle))
        with tls(sidecar, port, "wrong.test", context) as connection:
            answer = get(connection, "wrong.test")

        assert " 502 " in answer
        assert "upstream_tls" in answer
        assert upstream.requests == []
        sidecar.event("tls_handshake_failed", side="server", reason="tls_upstream_name", host="wrong.test")
        sidecar.event("request_failed", reason="upstream_tls")


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_ticket_resumes_its_own_name_only(version: ssl.TLSVersion, tmp_path: Path) -> None:
    root = Root(tmp_path)
    with (
        serving(root.context("a.test", "b.test")) as (port, _),
        in_process(tmp_path, POLICY, upstream_ca=root.pem, names=NAMES) as sidecar,
    ):
        context = ssl.create_default_context(cafile=str(sidecar.bundle))
        context.minimum_version = context.maximum_version = version
        with tls(sidecar, port, "a.test", context) as first:
            assert "hello from a.test" in get(first, "a.test")
            session = first.session
        assert session is not None

        with tls(sidecar, port, "a.test", context, session) as again:
            resumed = again.session_reused
        with tls(sidecar, port, "b.test", context, session) as other:
            crossed = other.session_reused
            certificate = other.getpeercert()

    assert resumed is True
    assert crossed is False
    assert certificate is not None
    assert certificate["subjectAltName"] == (("DNS", "b.test"),)


def test_an_address_is_served_a_leaf_for_that_address(tmp_path: Path) -> None:
    root = Root(tmp_path)
    with (
        serving(root.context("127.0.0.1")) as (port, _),
        in_process(tmp_path, POLICY, upstream_ca=root.pem, names=()) as sidecar,
    ):
        context = ssl.create_default_context(cafile=str(sidecar.bundle))
        with tls(sidecar, port, "127.0.0.1", context) as connection:
            answer = get(connection, "127.0.0.1")
            certificate = connection.getpeercert()

    assert "hello from 127.0.0.1" in answer
    assert certificate is not None
    assert certificate["subjectAltName"] == (("IP Address", "127.0.0.1"),)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1])
def test_old_tls_is_refused_and_said_to_be_old(version: ssl.TLSVersion, tmp_path: Path) -> None:
    root = Root(tmp_path)
    with (
        serving(root.context("a.test")) as (port, upstream),
        in_process(tmp_path, POLICY, upstream_ca=root.pem, names=NAMES) as sidecar,
    ):
        context = ssl.create_default_context(cafile=str(sidecar.bundle))
        context.set_ciphers("ALL:@SECLEVEL=0")
        with pytest.warns(DeprecationWarning):
            context.minimum_version = context.maximum_version = version
        with pytest.raises((ssl.SSLError, OSError)), tls(sidecar, port, "a.test", context):
            pass

        sidecar.event("tls_handshake_failed", side="client", reason="tls_client_version")
        assert upstream.requests == []


@pytest.mark.parametrize(
    "suites",
    [
        ["ECDHE-ECDSA-CHACHA20-POLY1305", "ECDHE-ECDSA-AES128-GCM-SHA256"],
        ["ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE-ECDSA-CHACHA20-POLY1305"],
    ],
)
def test_the_clients_order_of_suites_counts(suites: list[str], tmp_path: Path) -> None:
    root = Root(tmp_path)
    with (
        serving(root.context("a.test")) as (port, _),
        in_process(tmp_path, POLICY, upstream_ca=root.pem, names=NAMES) as sidecar,
    ):
        context = ssl.create_default_context(cafile=str(sidecar.bundle))
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        context.set_ciphers(":".join(suites))
        with tls(sidecar, port, "a.test", context) as connection:
            chosen = connection.cipher()

    assert chosen is not None
    assert chosen[0] == suites[0]


@pytest.mark.parametrize(
    ("version", "suite", "group"),
    [
        pytest.param(ssl.TLSVersion.TLSv1_2, "ECDHE-ECDSA-AES128-SHA", "prime256v1", id="CBC"),
        pytest.param(ssl.TLSVersion.TLSv1_2, "DHE-RSA-AES128-GCM-SHA256", "prime256v1", id="DHE"),
        # Under TLS 1.2 the groups are also those of the certificate's key.
        pytest.param(ssl.TLSVersion.TLSv1_3, "ECDHE", "secp521r1", id="a group outside of the profile"),
    ],
)
def test_what_the_profile_lacks_is_refused_on_the_client_side(
    version: ssl.TLSVersion, suite: str, group: str, tmp_path: Path
) -> None:
    root = Root(tmp_path)
    with (
        serving(root.context("a.test")) as (port, _),
        in_process(tmp_path, POLICY, upstream_ca=root.pem, names=NAMES) as sidecar,
    ):
        context = ssl.create_default_context(cafile=str(sidecar.bundle))
        context.minimum_version = context.maximum_version = version
        context.set_ciphers(suite)
        context.set_ecdh_curve(group)
        with pytest.raises((ssl.SSLError, OSError)), tls(sidecar, port, "a.test", context):
            pass

        sidecar.event("tls_handshake_failed", side="client", reason="tls_client_ciphers")
