"""Clients that leave while something is under way for them: one closing record, and nothing stays behind."""

import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from sidecar.limits import Limits
from tests.live.inprocess import InProcess, in_process
from tests.live.sidecars import CONNECTION_ENDS, REQUEST_ENDS, SECONDS, until
from tests.live.upstreams import Root
from tests.live.wire import ask

pytestmark = pytest.mark.live


@contextmanager
def never_accepting() -> Iterator[int]:
    """A port to which a connection is begun, and neither completed nor refused: its queue is full."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(3):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]


@contextmanager
def dialling(folder: Path, seconds: float) -> Iterator[tuple[InProcess, str]]:
    """A sidecar whose upstream, given by its authority, doesn't answer for so long."""
    root = Root(folder)
    with never_accepting() as port:
        policy = f"""
version: 1
rules:
  - allow: ["up.test"]
    ports: [{port}]
network: {{allow_addresses: [127.0.0.0/8]}}
"""
        with in_process(
            folder,
            policy,
            upstream_ca=root.pem,
            names=("up.test",),
            level="debug",
            limits=Limits(address_seconds=seconds),
        ) as sidecar:
            yield sidecar, f"up.test:{port}"


def gone(sidecar: InProcess) -> None:
    until(lambda: len(sidecar.session.ledger) == 0, "end of the connection")
    ends = (*REQUEST_ENDS, *CONNECTION_ENDS)
    assert len([e for e in sidecar.events() if e["event"] in ends]) == 1, sidecar.events()
    assert sidecar.session.log.connections == 1


def test_a_client_that_leaves_during_a_dial_is_forgotten(tmp_path: Path) -> None:
    with dialling(tmp_path, SECONDS) as (sidecar, authority):
        with socket.create_connection(("127.0.0.1", sidecar.port), SECONDS) as client:
            client.sendall(f"GET http://{authority}/ HTTP/1.1\r\nHost: {authority}\r\n\r\n".encode())
            sidecar.event("request_allowed")

        sidecar.event("request_failed", reason="client_disconnected")
        until(lambda: len(sidecar.session.ledger) == 0, "end of the connection")
        time.sleep(0.2)  # the dial is given up after the client's end, and once made a new record

        gone(sidecar)


def test_a_client_that_gives_up_while_its_upstream_is_dialled_has_not_refused_the_ca(tmp_path: Path) -> None:
    with dialling(tmp_path, 1.0) as (sidecar, authority):
        with socket.create_connection(("127.0.0.1", sidecar.port), SECONDS) as client:
            head = f"CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n\r\n".encode()
            assert ask(client, head, method="CONNECT").status == 200
            outgoing = ssl.MemoryBIO()
            tls = ssl.create_default_context().wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="up.test")
            with pytest.raises(ssl.SSLWantReadError):
                tls.do_handshake()
            client.sendall(outgoing.read())

        failed = sidecar.event("tls_handshake_failed", side="client")

        assert failed["reason"] == "tls_client_closed"
        gone(sidecar)
