"""Files that the policy names for upstreams change while the sidecar runs: the next handshake is made with the new."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.live.mounted import put
from tests.live.sidecars import Line, Sidecar, running, until
from tests.live.tls_upstream import answering, certificate, write
from tests.live.upstreams import Root, serving
from tests.live.wire import ask, get, secure
from tests.pki.authorities import Authority

pytestmark = pytest.mark.live

POLICY = """\
version: 1
default: allow
network: {{allow_addresses: ["127.0.0.1"]}}
upstreams:
  - hosts: [one.test]
    {}
"""
ROOT = certificate("upstream root", ca=True)
LEAF = certificate("one.test", ROOT)
CLIENT_ROOT = certificate("client root", ca=True)


@contextmanager
def sidecar_with(folder: Path, entry: str) -> Iterator[Sidecar]:
    with running(
        folder / "sidecar",
        POLICY.format(entry),
        "--resolve=one.test:127.0.0.1",
        "--upstream-ca",
        str(folder / "root.pem"),
    ) as sidecar:
        sidecar.event("policy_loaded")
        yield sidecar


def status(sidecar: Sidecar, port: int) -> int:
    """Of a request on a connection of its own."""
    with secure(sidecar, f"one.test:{port}") as sock:
        return ask(sock, get(f"one.test:{port}")).status


def next_event(sidecar: Sidecar, name: str, before: int) -> Line:
    return until(lambda: sidecar.events(name)[before:] or None, f"{name} after {before}")[0]


def secret(mount: Path, version: str, client: Authority) -> None:
    """A Secret's volume as the kubelet makes and updates it: all files at once, by moving a link."""
    folder = mount / version
    folder.mkdir(parents=True)
    write(folder / "tls.crt", client)
    (folder / "tls.key").write_bytes(client.key_pem)
    (mount / "..data_tmp").symlink_to(version)
    (mount / "..data_tmp").replace(mount / "..data")
    for name in ("tls.crt", "tls.key"):
        if not (mount / name).is_symlink():
            (mount / name).symlink_to(f"..data/{name}")


def test_a_new_client_certificate_is_shown_from_the_next_handshake_on(tmp_path: Path) -> None:
    write(tmp_path / "root.pem", ROOT)
    mount = tmp_path / "secret"
    secret(mount, "..1", certificate("first", CLIENT_ROOT))
    entry = f"client_certificate: {{certificate: {mount}/tls.crt, key: {mount}/tls.key}}"

    with (
        answering([LEAF], asks=write(tmp_path / "client-root.pem", CLIENT_ROOT)) as (port, served),
        sidecar_with(tmp_path, entry) as sidecar,
    ):
        assert status(sidecar, port) == 200
        before = sidecar.event("policy_loaded")
        secret(mount, "..2", certificate("second", CLIENT_ROOT))
        loaded = next_event(sidecar, "policy_loaded", 1)
        assert status(sidecar, port) == 200

        assert served.clients == ["first", "second"]
        assert loaded["policy_hash"] == before["policy_hash"]
        assert loaded["generation"] == before["generation"] + 1
        assert not sidecar.events("policy_reload_failed")


def test_open_connections_go_on_when_roots_change(tmp_path: Path) -> None:
    root = Root(tmp_path)
    root.pem.rename(tmp_path / "root.pem")
    private = tmp_path / "sidecar" / "private.pem"  # relative to the policy's folder
    private.parent.mkdir()
    private.write_bytes((tmp_path / "root.pem").read_bytes())

    with (
        serving(root.context("one.test")) as (port, seen),
        sidecar_with(tmp_path, "roots: private.pem") as sidecar,
        secure(sidecar, f"one.test:{port}") as open_before,
    ):
        assert ask(open_before, get(f"one.test:{port}")).status == 200
        put(private, certificate("another root", ca=True).pem)
        next_event(sidecar, "policy_loaded", 1)

        assert ask(open_before, get(f"one.test:{port}")).status == 200
        assert status(sidecar, port) == 502
        assert len(seen.requests) == 2
        assert root.connections == 2


def test_a_broken_file_leaves_what_was_and_says_so_until_it_is_whole(tmp_path: Path) -> None:
    write(tmp_path / "root.pem", ROOT)
    roots = write(tmp_path / "private.pem", ROOT)

    with answering([LEAF]) as (port, _), sidecar_with(tmp_path, f"roots: {roots}") as sidecar:
        whole = roots.read_bytes()
        put(roots, whole[:100])
        failed = next_event(sidecar, "policy_reload_failed", 0)
        assert status(sidecar, port) == 200
        put(roots, whole)
        again = next_event(sidecar, "policy_loaded", 1)

        policy = tmp_path / "sidecar" / "policy.yaml"
        (problem,) = failed["problems"]
        assert problem.startswith(f"{policy}:6:12: upstreams[0].roots: {roots} holds a certificate that can't be read;")
        assert failed["generation"] == again["generation"] == 1
        assert len(sidecar.events("policy_reload_failed")) == 1


def test_a_file_that_comes_after_the_policy_that_names_it(tmp_path: Path) -> None:
    write(tmp_path / "root.pem", certificate("another root", ca=True))
    late = tmp_path / "later" / "private.pem"

    with answering([LEAF]) as (port, _), sidecar_with(tmp_path, "accept: [cbc]") as sidecar:
        assert status(sidecar, port) == 502
        put(tmp_path / "sidecar" / "policy.yaml", POLICY.format(f"roots: {late}"))
        failed = next_event(sidecar, "policy_reload_failed", 0)
        late.parent.mkdir()
        put(late, ROOT.pem)
        next_event(sidecar, "policy_loaded", 1)

        assert status(sidecar, port) == 200
        assert "no such file" in failed["problems"][0].lower()


def test_the_flags_roots_are_read_again_as_well(tmp_path: Path) -> None:
    write(tmp_path / "root.pem", certificate("another root", ca=True))

    with answering([LEAF]) as (port, _), sidecar_with(tmp_path, "accept: [cbc]") as sidecar:
        assert status(sidecar, port) == 502
        write(tmp_path / "root.pem", ROOT)
        next_event(sidecar, "policy_loaded", 1)

        assert status(sidecar, port) == 200
