"""Connections that end at awkward moments: each request has its end, and nothing stays behind in the driver."""

import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from mitmproxy import ctx

from tests.live.inprocess import in_process
from tests.live.sidecars import REQUEST_ENDS, SECONDS, until
from tests.live.upstreams import Root
from tests.live.wire import answer

pytestmark = pytest.mark.live

REQUESTS = 40
POLICY = """
version: 1
rules:
  - allow: ["up.test"]
    ports: [{port}]
network: {{allow_addresses: [127.0.0.0/8]}}
"""


def hangs_up(sock: socket.socket) -> None:
    sock.close()


def answers_and_hangs_up(sock: socket.socket) -> None:
    sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nearly")
    sock.close()


def resets(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


@contextmanager
def upstream(does: Callable[[socket.socket], None]) -> Iterator[int]:
    """Does so with each connection, as soon as it is made."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def accept() -> None:
            while True:
                try:
                    sock, _ = listener.accept()
                except OSError:
                    return
                does(sock)

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(SECONDS)


def handlers() -> dict[Any, Any]:
    proxyserver: Any = ctx.master.addons.get("proxyserver")
    connections: dict[Any, Any] = proxyserver.connections
    return connections


@pytest.mark.parametrize("does", [hangs_up, answers_and_hangs_up, resets])
def test_an_upstream_that_ends_at_once_ends_its_request(does: Callable[[socket.socket], None], tmp_path: Path) -> None:
    with (
        upstream(does) as port,
        in_process(tmp_path, POLICY.format(port=port), upstream_ca=Root(tmp_path).pem, names=("up.test",)) as sidecar,
    ):
        for _ in range(REQUESTS):
            with socket.create_connection(("127.0.0.1", sidecar.port), SECONDS) as client:
                client.sendall(f"GET http://up.test:{port}/ HTTP/1.1\r\nHost: up.test:{port}\r\n\r\n".encode())
                assert answer(client).status in (200, 502)

        until(lambda: not handlers(), "end of all connections")
        assert len(sidecar.session.ledger) == 0
        assert len([event for event in sidecar.events() if event["event"] in REQUEST_ENDS]) == REQUESTS


@pytest.mark.parametrize("sent", [b"", b"GET", b"CONNECT up.test:443 HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x02\x00\x01"])
def test_a_client_that_ends_at_once_is_forgotten(sent: bytes, tmp_path: Path) -> None:
    with in_process(tmp_path, POLICY.format(port=443), upstream_ca=Root(tmp_path).pem, names=("up.test",)) as sidecar:
        for leave in (hangs_up, resets):
            for _ in range(REQUESTS):
                client = socket.create_connection(("127.0.0.1", sidecar.port), SECONDS)
                client.sendall(sent)
                leave(client)

        until(lambda: sidecar.session.log.connections == 2 * REQUESTS, "all connections")
        until(lambda: not handlers(), "end of all connections")
        assert len(sidecar.session.ledger) == 0
