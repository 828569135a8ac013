"""The CA changes under a running sidecar: what is new is signed by the new one, what is open goes on."""

import asyncio
import json
import re
import shutil
import socket
import ssl
import subprocess
import sys
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID

from tests.live.mounted import Secret, authority_now, ca_files, rename_over, write_in_place
from tests.live.sidecars import SECONDS, Sidecar, running, until
from tests.live.upstreams import Root, serving
from tests.live.wire import Http2Client, ask, environment, get, secure, trusting, tunnel

pytestmark = pytest.mark.live

POLICY = """\
version: 1
rules:
  - allow: ["*.test"]
    ports: ["1-65535"]
network: {allow_addresses: ["127.0.0.1"]}
"""
ROOT, NEW_ROOT = authority_now("old root", path_length=1), authority_now("new root", path_length=1)
ONE, TWO, THREE = (authority_now(name, ROOT, path_length=0) for name in ("one", "two", "three"))
NEW = authority_now("new", NEW_ROOT, path_length=0)
OVERLAPPING = ROOT.pem + NEW_ROOT.pem


@contextmanager
def rotating(folder: Path, root: Root, *arguments: str, ca: Path | None = None) -> Iterator[tuple[Sidecar, Secret]]:
    """A sidecar whose CA is the Secret's, and whose workload trusts `ROOT`."""
    secret = Secret(folder / "secret", ca_files(ONE, ROOT))
    resolve = (f"--resolve={name}.test:127.0.0.1" for name in ("one", "two"))
    with running(
        folder / "sidecar",
        POLICY,
        *("--ca-dir", str(ca or secret.folder), "--upstream-ca", str(root.pem), *arguments, *resolve),
    ) as sidecar:
        sidecar.event("policy_loaded")
        (sidecar.trust / "bundle.pem").write_bytes(OVERLAPPING)
        yield sidecar, secret


def issuer(sock: ssl.SSLSocket) -> str:
    """The common name of who has signed the leaf that the client got."""
    leaf = x509.load_der_x509_certificate(sock.getpeercert(binary_form=True) or b"")
    return str(leaf.issuer.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value)


def new_issuer(sidecar: Sidecar, authority: str) -> str:
    with secure(sidecar, authority) as sock:
        assert ask(sock, get(authority)).status == 200
        return issuer(sock)


def test_whatever_is_open_goes_on_and_new_connections_get_the_new_ca(tmp_path: Path) -> None:
    root = Root(tmp_path)
    with (
        serving(root.context("one.test")) as (port, seen),
        serving(root.context("two.test", alpn=("h2",)), http2=True) as (port_http2, seen_http2),
        rotating(tmp_path, root) as (sidecar, secret),
    ):
        one, two = f"one.test:{port}", f"two.test:{port_http2}"
        kept, download, plain = secure(sidecar, one), secure(sidecar, one), secure(sidecar, two, alpn=("h2",))
        half_open = tunnel(sidecar, one)  # CONNECT is answered, TLS not begun
        with kept, download, plain, half_open:
            assert ask(kept, get(one)).status == 200
            download.sendall(get(one, "/bytes/50000000"))
            assert download.recv(1)
            http2 = Http2Client(plain)
            stream = http2.open(two, "/events")
            until(lambda: seen_http2.requests, "the stream at its upstream")

            async def talk() -> list[str]:
                async with (
                    aiohttp.ClientSession() as client,
                    client.ws_connect(f"https://{one}/ws", proxy=sidecar.proxy, ssl=trusting(sidecar)) as websocket,
                ):
                    await websocket.send_str("before")
                    said = [await websocket.receive_str(timeout=SECONDS)]
                    secret.swap(ca_files(TWO, ROOT))
                    await asyncio.to_thread(sidecar.event, "ca_rotated")
                    await websocket.send_str("after")
                    return [*said, await websocket.receive_str(timeout=SECONDS)]

            assert asyncio.run(talk()) == ["before", "after"]
            assert ask(kept, get(one)).status == 200, "the next request of an open connection"
            assert issuer(kept) == "one"
            assert new_issuer(sidecar, one) == "two"
            with trusting(sidecar).wrap_socket(half_open, server_hostname="one.test") as late:
                assert ask(late, get(one)).status == 200
                assert issuer(late) == "two"
            seen_http2.release.set()
            answered = http2.finish(stream)
            assert answered is not None and answered.body == b"data: first\n\ndata: second\n\n"
            assert _rest(download) > 50_000_000 - 1
    events = sidecar.events()  # all of them: it has ended
    assert [e for e in events if e["event"] in ("request_failed", "tls_handshake_failed", "connection_denied")] == []
    assert seen.sent_bytes == 50_000_000


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(rename_over, id="each file is replaced by another"),
        pytest.param(write_in_place, id="each file is written in place"),
    ],
)
def test_files_without_links_are_followed(tmp_path: Path, change: Callable[[Path, dict[str, bytes]], None]) -> None:
    root, ca = Root(tmp_path), tmp_path / "plain"
    ca.mkdir()
    write_in_place(ca, ca_files(ONE, ROOT))
    with serving(root.context("one.test")) as (port, _), rotating(tmp_path, root, ca=ca) as (sidecar, _secret):
        assert new_issuer(sidecar, f"one.test:{port}") == "one"

        change(ca, ca_files(TWO, ROOT))
        sidecar.event("ca_rotated")

        assert new_issuer(sidecar, f"one.test:{port}") == "two"
        assert not sidecar.events("ca_reload_failed")


def test_a_secret_is_followed_from_version_to_version(tmp_path: Path) -> None:
    root = Root(tmp_path)
    with serving(root.context("one.test")) as (port, _), rotating(tmp_path, root) as (sidecar, secret):
        pid = sidecar.process.pid
        for count, (issuing, name) in enumerate(((TWO, "two"), (THREE, "three"), (ONE, "one")), start=1):
            secret.swap(ca_files(issuing, ROOT))
            until(lambda count=count: len(sidecar.events("ca_rotated")) == count, f"rotation {count}")  # type: ignore[misc]
            assert new_issuer(sidecar, f"one.test:{port}") == name
        rotated = sidecar.events("ca_rotated")
    assert sidecar.process.pid == pid
    assert [e["reason"] for e in rotated] == ["same_root"] * 3
    assert all(b["old_fingerprint_sha256"] == a["fingerprint_sha256"] for a, b in pairwise(rotated))
    assert not sidecar.events("ca_reload_failed")


def test_12_rotations_under_load_lose_no_request(tmp_path: Path) -> None:
    """Connections are opened all the time, some kept; the workload trusts both roots."""
    root = Root(tmp_path)
    cas = [ca_files(issuing, root) for issuing, root in ((TWO, ROOT), (NEW, NEW_ROOT), (ONE, ROOT), (THREE, ROOT))]
    statuses: Counter[int] = Counter()
    done = False

    async def ask_on(client: aiohttp.ClientSession, url: str) -> None:
        while not done:
            async with client.get(url, proxy=sidecar.proxy) as response:
                await response.read()
            statuses[response.status] += 1
            await asyncio.sleep(0.02)

    def rotate() -> None:
        nonlocal done
        try:
            for count in range(12):
                secret.swap(cas[count % 4])
                until(lambda count=count: len(sidecar.events("ca_rotated")) > count, f"rotation {count}")  # type: ignore[misc]
        finally:
            done = True

    async def storm() -> None:
        url, context = f"https://one.test:{port}/", trusting(sidecar)
        once = aiohttp.TCPConnector(ssl=context, force_close=True)
        kept = aiohttp.TCPConnector(ssl=context)
        async with aiohttp.ClientSession(connector=once) as opens, aiohttp.ClientSession(connector=kept) as keeps:
            rotations = asyncio.get_running_loop().run_in_executor(None, rotate)
            await asyncio.gather(rotations, *(ask_on(client, url) for client in (opens, opens, keeps, keeps)))

    with serving(root.context("one.test")) as (port, _), rotating(tmp_path, root) as (sidecar, secret):
        asyncio.run(storm())

    events = sidecar.events()  # all of them: it has ended
    count = Counter(event["event"] for event in events)
    assert count["ca_rotated"] == 12 and count["ca_reload_failed"] == 0
    assert set(statuses) == {200} and statuses[200] == count["request_closed"] > 20
    assert count["request_failed"] == count["tls_handshake_failed"] == count["connection_denied"] == 0


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["1.2", "1.3"])
def test_a_session_of_the_old_ca_is_not_resumed(tmp_path: Path, version: ssl.TLSVersion) -> None:
    root = Root(tmp_path)
    with serving(root.context("one.test")) as (port, _), rotating(tmp_path, root) as (sidecar, secret):
        authority = f"one.test:{port}"
        context = trusting(sidecar)
        context.minimum_version = context.maximum_version = version

        def again(session: ssl.SSLSession | None) -> tuple[bool | None, ssl.SSLSession | None]:
            plain = tunnel(sidecar, authority)
            with context.wrap_socket(plain, server_hostname="one.test", session=session) as sock:
                assert ask(sock, get(authority)).status == 200  # tickets of TLS 1.3 come after the handshake
                return sock.session_reused, sock.session

        _, session = again(None)
        resumed, session = again(session)
        secret.swap(ca_files(TWO, ROOT))
        sidecar.event("ca_rotated")
        after, _ = again(session)

    assert (resumed, after) == (True, False)


def test_an_invalid_ca_leaves_the_sidecar_ready_and_a_note_says_why(tmp_path: Path) -> None:
    root, port_of_health = Root(tmp_path), _free_port()

    def readyz() -> dict[str, Any]:
        with urllib.request.urlopen(f"http://127.0.0.1:{port_of_health}/readyz", timeout=SECONDS) as response:
            document: dict[str, Any] = json.load(response)
            return document

    with (
        serving(root.context("one.test")) as (port, _),
        rotating(tmp_path, root, "--health-listen", f"127.0.0.1:{port_of_health}") as (sidecar, secret),
    ):
        secret.swap(ca_files(TWO, ROOT) | {"tls.key": THREE.key_pem})
        failed = sidecar.event("ca_reload_failed")
        told = readyz()
        kept = new_issuer(sidecar, f"one.test:{port}")
        secret.swap(ca_files(TWO, ROOT))
        sidecar.event("ca_rotated")

        assert "notes" not in readyz()
    assert kept == "one"
    assert failed["source"] == str(secret.folder)
    assert told["ready"] is True and [note["condition"] for note in told["notes"]] == ["ca_reload"]
    assert failed["problems"][0] in told["notes"][0]["detail"]
    assert "PRIVATE" not in sidecar.stderr + json.dumps(sidecar.events())


def test_a_new_root_is_used_once_the_workload_has_had_both_for_the_overlap(tmp_path: Path) -> None:
    root, bundle = Root(tmp_path), tmp_path / "workload.pem"
    bundle.write_bytes(ROOT.pem)
    with (
        serving(root.context("one.test")) as (port, _),
        rotating(tmp_path, root, "--trust-bundle", str(bundle), "--root-overlap", "1") as (sidecar, secret),
    ):
        authority = f"one.test:{port}"
        secret.swap(ca_files(NEW, NEW_ROOT))
        assert sidecar.event("ca_rotation_pending")["reason"] == "new_root_missing"
        assert new_issuer(sidecar, authority) == "one"
        bundle.write_bytes(OVERLAPPING)
        sidecar.event("ca_rotation_pending", reason="overlap")
        rotated = sidecar.event("ca_rotated")

        assert (rotated["reason"], rotated["root_changed"]) == ("overlap_over", True)
        assert new_issuer(sidecar, authority) == "new"


CLIENTS: dict[str, Callable[[Sidecar, str, Path], list[str]]] = {
    "curl": lambda s, a, ca: ["curl", "-sS", "--fail", "--cacert", str(ca), "-x", s.proxy, f"https://{a}/"],
    "wget": lambda s, a, ca: ["wget", "-qO-", "--tries=1", f"--ca-certificate={ca}", f"https://{a}/"],
    "git": lambda s, a, ca: ["git", "-c", f"http.sslCAInfo={ca}", "ls-remote", f"https://{a}/repo.git"],
}


def test_after_a_leak_the_old_chain_is_refused_and_the_new_one_serves_without_a_restart(tmp_path: Path) -> None:
    """The drill: the bundle loses the old root, every client that reads it refuses, the Secret is swapped, it works."""
    if missing := [tool for tool in CLIENTS if shutil.which(tool) is None]:
        pytest.fail(f"{missing} are missing")
    root, bundle = Root(tmp_path), tmp_path / "workload.pem"
    bundle.write_bytes(ROOT.pem)

    def works(name: str) -> bool:
        command = CLIENTS[name](sidecar, authority, bundle)
        done = subprocess.run(
            command,
            env=environment(proxy=sidecar.proxy),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=SECONDS,
            check=False,
        )
        return done.returncode == 0

    with (
        serving(root.context("one.test")) as (port, _),
        rotating(tmp_path, root, "--trust-bundle", str(bundle)) as (sidecar, secret),
        secure(sidecar, f"one.test:{port}") as other,
    ):
        authority = f"one.test:{port}"
        assert ask(other, get(authority)).status == 200
        assert {name: works(name) for name in CLIENTS} == dict.fromkeys(CLIENTS, True)

        bundle.write_bytes(NEW_ROOT.pem)
        assert {name: works(name) for name in CLIENTS} == dict.fromkeys(CLIENTS, False)
        until(lambda: len(sidecar.events("tls_handshake_failed", side="client")) == len(CLIENTS), "a record of each")

        secret.swap(ca_files(NEW, NEW_ROOT))
        rotated = sidecar.event("ca_rotated")
        assert {name: works(name) for name in CLIENTS} == dict.fromkeys(CLIENTS, True)
        assert ask(other, get(authority)).status == 200, "another connection, undisturbed"
        assert issuer(other) == "one"
    assert rotated["reason"] == "old_root_withdrawn"


@pytest.mark.parametrize(
    ("content", "says"),
    [
        pytest.param(None, "workload.pem: No such file or directory; mount the bundle", id="none"),
        pytest.param(b"nothing", "workload.pem holds no certificate", id="no certificate"),
    ],
)
def test_a_trust_bundle_that_is_none_is_refused_at_start(tmp_path: Path, content: bytes | None, says: str) -> None:

    bundle, policy = tmp_path / "workload.pem", tmp_path / "policy.yaml"
    policy.write_text(POLICY)
    secret = Secret(tmp_path / "secret", ca_files(ONE, ROOT))
    if content is not None:
        bundle.write_bytes(content)
    command = [sys.executable, "-m", "sidecar", "run", "--listen", "127.0.0.1:0", "--health-listen", "none"]
    command += ["--ca-dir", str(secret.folder), "--policy", str(policy), "--trust-bundle", str(bundle)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)

    assert done.returncode in (2, 3)
    assert re.search(re.escape(says), done.stderr), done.stderr


def _rest(sock: ssl.SSLSocket) -> int:
    """Read a whole answer of a given length; how many bytes came, head and all."""
    sock.settimeout(SECONDS)
    got = 1
    while got < 50_000_000:
        data = sock.recv(1 << 20)
        assert data, f"ended after {got} bytes"
        got += len(data)
    return got


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
