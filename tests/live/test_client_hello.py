"""Passthrough trusts the name in a ClientHello, so there must be one name in it, whoever reads it."""

import socket
import ssl
import struct
from pathlib import Path

import pytest

from tests.live.inprocess import in_process
from tests.live.sidecars import SECONDS
from tests.live.upstreams import Root
from tests.live.wire import ask

pytestmark = pytest.mark.live


def client_hello(sni: str) -> bytes:
    """One TLS record, as the standard library's client sends it."""
    outgoing = ssl.MemoryBIO()
    client = ssl.create_default_context().wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname=sni)
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    return outgoing.read()


def server_name(*names: bytes) -> bytes:
    """The extension (RFC 6066, section 3), which may hold no more than one host name."""
    listed = b"".join(b"\0" + struct.pack("!H", len(name)) + name for name in names)
    body = struct.pack("!H", len(listed)) + listed
    return struct.pack("!HH", 0, len(body)) + body


def with_extension(record: bytes, extension: bytes, *, instead: bool = False) -> bytes:
    """Another extension behind those of a ClientHello, or instead of its server name (RFC 8446, section 4.1.2)."""
    at = 5 + 4 + 2 + 32
    at += 1 + record[at]
    at += 2 + int.from_bytes(record[at : at + 2])
    at += 1 + record[at]
    head, rest, kept = record[9:at], record[at + 2 :], b""
    while rest:
        number, size = struct.unpack_from("!HH", rest)
        kept += b"" if instead and number == 0 else rest[: 4 + size]
        rest = rest[4 + size :]
    kept += extension
    hello = head + struct.pack("!H", len(kept)) + kept
    message = b"\x01" + len(hello).to_bytes(3) + hello
    return b"\x16\x03\x01" + struct.pack("!H", len(message)) + message


HELLO = client_hello("pinned.test")


@pytest.mark.parametrize(
    ("hello", "passes"),
    [
        pytest.param(HELLO, True, id="the judged name"),
        pytest.param(with_extension(HELLO, b"", instead=True), True, id="no name"),
        pytest.param(with_extension(HELLO, server_name(b"other.test")), False, id="two server names"),
        pytest.param(
            with_extension(HELLO, server_name(b"pinned.test", b"other.test"), instead=True), False, id="a list of two"
        ),
        pytest.param(with_extension(HELLO, server_name(b"oth er.test"), instead=True), False, id="no host name at all"),
        pytest.param(with_extension(HELLO, server_name(b"1.2.3"), instead=True), False, id="half an address"),
    ],
)
def test_a_client_hello_passes_unopened_only_with_one_reading(hello: bytes, passes: bool, tmp_path: Path) -> None:
    root = Root(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as upstream:
        upstream.settimeout(SECONDS)
        port = upstream.getsockname()[1]
        policy = f"""
version: 1
rules:
  - passthrough: ["pinned.test"]
    ports: [{port}]
network: {{allow_addresses: [127.0.0.0/8]}}
"""
        with (
            in_process(tmp_path, policy, upstream_ca=root.pem, names=("pinned.test",)) as sidecar,
            socket.create_connection(("127.0.0.1", sidecar.port), SECONDS) as client,
        ):
            head = f"CONNECT pinned.test:{port} HTTP/1.1\r\nHost: pinned.test:{port}\r\n\r\n".encode()
            assert ask(client, head, method="CONNECT").status == 200
            client.sendall(hello)
            connection, _ = upstream.accept()
            with connection:
                connection.settimeout(SECONDS)
                received = connection.recv(65_536)

            assert (received == hello) is passes
            assert bool(sidecar.events("connection_allowed", protocol="passthrough")) is passes
