"""Upstreams whose certificates an ACME server has issued (RFC 8555), under a root that nobody knows."""

import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.live.pki import pebble
from tests.live.sidecars import running
from tests.live.upstreams import Root, serving
from tests.live.wire import ask, get, secure

pytestmark = [pytest.mark.live, pytest.mark.timeout(180)]

HOST = "shop.example.com"
POLICY = """
version: 1
rules:
  - allow: ["shop.example.com"]
    ports: [{port}]
network:
  allow_addresses: ["127.0.0.1"]
"""


@pytest.fixture(scope="module")
def issued(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Path]]:
    """A server's key and chain, as Pebble has issued them over HTTP-01; and Pebble's root."""
    folder = tmp_path_factory.mktemp("pebble")
    with pebble.serving(folder) as acme:
        (folder / "server.pem").write_bytes(acme.issue(HOST))
        (folder / "root.pem").write_bytes(acme.root())
    yield folder / "server.pem", folder / "root.pem"


def context(server: Path) -> ssl.SSLContext:
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.load_cert_chain(server)
    return made


def test_an_upstream_is_verified_by_the_acme_servers_root(issued: tuple[Path, Path], tmp_path: Path) -> None:
    server, root = issued
    with (
        serving(context(server)) as (port, upstream),
        running(
            tmp_path / "sidecar",
            POLICY.format(port=port),
            *("--upstream-ca", str(root), "--resolve", f"{HOST}:127.0.0.1"),
        ) as sidecar,
        secure(sidecar, f"{HOST}:{port}") as client,
    ):
        answer = ask(client, get(f"{HOST}:{port}"))

    assert (answer.status, answer.body) == (200, f"hello from {HOST}:{port}\n".encode())
    assert len(upstream.requests) == 1


@pytest.mark.parametrize("other", [False, True], ids=["the public roots alone", "another private root"])
def test_it_is_refused_without_that_root(issued: tuple[Path, Path], tmp_path: Path, other: bool) -> None:
    server, _ = issued
    roots = ("--upstream-ca", str(Root(tmp_path).pem)) if other else ()
    with (
        serving(context(server)) as (port, upstream),
        running(tmp_path / "sidecar", POLICY.format(port=port), *roots, "--resolve", f"{HOST}:127.0.0.1") as sidecar,
        secure(sidecar, f"{HOST}:{port}") as client,
    ):
        answer = ask(client, get(f"{HOST}:{port}"))
        failed = sidecar.event("tls_handshake_failed", side="server", host=HOST)

    assert (answer.status, answer.reason) == (502, "upstream_tls")
    assert failed["reason"] == "tls_upstream_certificate"
    assert upstream.requests == []
