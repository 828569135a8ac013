"""Clients that break off the handshake: exactly one event says so, with the reason that the wire gives away."""

import base64
import hashlib
import shutil
import socket
import ssl
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest

from tests.live.sidecars import Line, Sidecar, running
from tests.live.wire import environment, get, trusting, tunnel

pytestmark = pytest.mark.live

POLICY = "version: 1\n"  # all is denied: the handshake comes first

VERSIONS = {"1.2": "TLSv1.2", "1.3": "TLSv1.3"}


@pytest.fixture(scope="module")
def sidecar(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sidecar]:
    with running(tmp_path_factory.mktemp("distrust") / "sidecar", POLICY) as sidecar:
        yield sidecar


def the_one(sidecar: Sidecar, host: str) -> Line:
    """The one event of the one connection to *host*, which is there once the next connection has been served."""
    failed = sidecar.event("tls_handshake_failed", host=host)
    with suppress(OSError), tunnel(sidecar, f"after-{host}:443"):
        pass
    sidecar.event("connection_closed", host=f"after-{host}")
    assert sidecar.events(host=host) == [failed]
    assert sidecar.events(connection_id=failed["connection_id"]) == [failed]
    assert (failed["side"], failed["port"]) == ("client", 443)
    return failed


PYTHON = """
import socket, ssl, sys
port, host, version = sys.argv[1:]
sock = socket.create_connection(("127.0.0.1", int(port)), 20)
sock.sendall(f"CONNECT {host}:443 HTTP/1.1\\r\\nHost: {host}:443\\r\\n\\r\\n".encode())
assert b" 200 " in sock.recv(4096)
context = ssl.create_default_context()
context.minimum_version = context.maximum_version = ssl.TLSVersion["TLSv" + version.replace(".", "_")]
context.wrap_socket(sock, server_hostname=host)
"""
NODE = """
const [port, host, version] = process.argv.slice(1);
const path = `${host}:443`;
require('http').request({host: '127.0.0.1', port, method: 'CONNECT', path, headers: {host: path}})
  .on('connect', (_, socket) => require('tls').connect(
    {socket, servername: host, minVersion: `TLSv${version}`, maxVersion: `TLSv${version}`})
    .on('secureConnect', () => process.exit(0)).on('error', () => process.exit(1))).end();
"""


def curl(sidecar: Sidecar, host: str, version: str) -> list[str]:
    limit = ["--tls-max", "1.2"] if version == "1.2" else ["--tlsv1.3"]
    return ["curl", "--silent", "--proxy", sidecar.proxy, *limit, f"https://{host}/"]


def python(sidecar: Sidecar, host: str, version: str) -> list[str]:
    return [sys.executable, "-c", PYTHON, str(sidecar.port), host, version]


def node(sidecar: Sidecar, host: str, version: str) -> list[str]:
    return ["node", "-e", NODE, str(sidecar.port), host, version]


def openssl(sidecar: Sidecar, host: str, version: str) -> list[str]:
    options = [f"-tls{version.replace('.', '_')}", "-verify_return_error", "-verify", "3", "-servername", host]
    return ["openssl", "s_client", "-proxy", sidecar.listen, "-connect", f"{host}:443", *options]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("client", [curl, python, openssl], ids=lambda client: client.__name__)
def test_a_client_that_does_not_know_the_ca_says_so(
    sidecar: Sidecar, client: Callable[[Sidecar, str, str], list[str]], version: str
) -> None:
    host = f"{client.__name__}-{version.replace('.', '-')}.test"
    command = client(sidecar, host, version)
    if shutil.which(command[0]) is None:
        pytest.fail(f"needs {command[0]}")

    done = subprocess.run(
        command, env=environment(), stdin=subprocess.DEVNULL, capture_output=True, timeout=60, check=False
    )

    assert done.returncode != 0
    assert b"CERTIFICATE_VERIFY_FAILED" in done.stderr or client is not python, done.stderr
    failed = the_one(sidecar, host)
    assert (failed["reason"], failed["alert"], failed["suspected"]) == ("tls_client_rejected_ca", "unknown_ca", False)
    assert (failed["tls_version"], failed["sni"]) == (VERSIONS[version], host)
    assert "trust bundle" in failed["hint"]


@pytest.mark.parametrize("version", VERSIONS)
def test_node_says_nothing_and_is_suspected(sidecar: Sidecar, version: str) -> None:
    host = f"node-{version.replace('.', '-')}.test"
    if shutil.which("node") is None:
        pytest.fail("needs node")

    done = subprocess.run(node(sidecar, host, version), env=environment(), timeout=60, check=False)

    assert done.returncode == 1
    failed = the_one(sidecar, host)  # it looks at the certificate after the handshake, and closes without an alert
    assert (failed["reason"], failed["alert"], failed["suspected"]) == ("tls_client_rejected_ca", None, True)
    assert (failed["tls_version"], failed["sni"]) == (VERSIONS[version], host)
    assert "trust bundle" in failed["hint"]


@pytest.mark.parametrize("version", VERSIONS)
def test_a_client_that_pins_another_key_is_suspected(sidecar: Sidecar, version: str) -> None:
    host = f"pin-{version.replace('.', '-')}.test"
    pin = base64.b64encode(hashlib.sha256(b"another key").digest()).decode()
    command = [*curl(sidecar, host, version), "--cacert", str(sidecar.trust / "bundle.pem")]

    done = subprocess.run([*command, "--pinnedpubkey", f"sha256//{pin}"], env=environment(), timeout=60, check=False)

    assert done.returncode == 90  # CURLE_SSL_PINNEDPUBKEYNOTMATCH
    failed = the_one(sidecar, host)
    assert failed["reason"] == "tls_client_closed_after_handshake"
    assert (failed["alert"], failed["suspected"]) == (None, True)
    assert "passthrough" in failed["hint"]


def hello(host: str, context: ssl.SSLContext | None = None) -> bytes:
    """The first flight of a client."""
    sent = ssl.MemoryBIO()
    context = context or trusting(None)
    with suppress(ssl.SSLWantReadError):
        context.wrap_bio(ssl.MemoryBIO(), sent, server_hostname=host).do_handshake()
    return sent.read()


@pytest.mark.parametrize("how", ["closes", "resets"])
def test_a_client_that_hangs_up_on_the_certificate_is_suspected(sidecar: Sidecar, how: str) -> None:
    host = f"{how}.test"
    with tunnel(sidecar, f"{host}:443") as sock:
        sock.sendall(hello(host))
        assert sock.recv(5)[:1] == b"\x16"  # the ServerHello has come
        if how == "resets":
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    failed = the_one(sidecar, host)
    assert (failed["reason"], failed["alert"], failed["suspected"]) == ("tls_client_rejected_ca", None, True)


def test_a_client_that_hangs_up_within_its_first_message_is_suspected(sidecar: Sidecar) -> None:
    host = "half-hello.test"
    with tunnel(sidecar, f"{host}:443") as sock:
        sock.sendall(hello(host)[:50])

    failed = the_one(sidecar, host)
    assert (failed["reason"], failed["suspected"]) == ("tls_client_closed", True)


def test_garbage_in_a_valid_record_is_no_client_hello(sidecar: Sidecar) -> None:
    host = "garbage.test"
    with tunnel(sidecar, f"{host}:443") as sock:
        sock.sendall(b"\x16\x03\x01\x00\x20" + b"\xff" * 32)
        with suppress(ConnectionError):
            assert sock.recv(4096)[:1] in (b"", b"\x15")  # closed, or an alert first

    assert the_one(sidecar, host)["reason"] == "tls_client_hello"


def test_a_client_hello_without_end_is_given_up(sidecar: Sidecar) -> None:
    host = "endless-hello.test"
    with tunnel(sidecar, f"{host}:443") as sock, pytest.raises(OSError):
        fragment = b"\x16\x03\x01\x40\x00" + b"\x01\xff\xff\xff".ljust(0x4000, b"\0")
        for _ in range(1000):  # 16 MB, as its header says
            sock.sendall(fragment)

    assert the_one(sidecar, host)["reason"] == "tls_client_hello"


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
def test_a_client_with_old_versions_only_is_told_so(sidecar: Sidecar) -> None:
    host = "old.test"
    context = trusting(None)
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = ssl.TLSVersion.TLSv1
    context.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises(ssl.SSLError, match="ALERT_PROTOCOL_VERSION"), tunnel(sidecar, f"{host}:443") as sock:
        context.wrap_socket(sock, server_hostname=host)

    failed = the_one(sidecar, host)
    assert failed["reason"] == "tls_client_version"
    assert not failed["suspected"]


def test_a_client_without_a_common_cipher_is_told_so(sidecar: Sidecar) -> None:
    host = "ciphers.test"
    context = trusting(None)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers("AES128-SHA:@SECLEVEL=0")
    with pytest.raises(ssl.SSLError, match="ALERT_HANDSHAKE_FAILURE"), tunnel(sidecar, f"{host}:443") as sock:
        context.wrap_socket(sock, server_hostname=host)

    failed = the_one(sidecar, host)
    assert failed["reason"] == "tls_client_ciphers"
    assert not failed["suspected"]


def test_a_client_that_trusts_the_ca_leaves_no_such_event(sidecar: Sidecar) -> None:
    host = "trusts.test"
    with trusting(sidecar).wrap_socket(tunnel(sidecar, f"{host}:443"), server_hostname=host) as sock:
        sock.sendall(get(host))
        sidecar.event("request_denied", host=host)

    assert not sidecar.events("tls_handshake_failed", host=host)
