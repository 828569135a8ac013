"""TLS sessions with upstreams are resumed, by the very destination and trust that an earlier handshake has verified."""

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from sidecar.upstreams.files import load_upstreams
from tests.live.inprocess import InProcess, in_process
from tests.live.test_upstream_tls import POLICY, get, tls
from tests.live.upstreams import Root

pytestmark = pytest.mark.live

NAMES = ("a.test", "b.test")


@contextmanager
def answering(context: ssl.SSLContext) -> Iterator[tuple[int, list[bool]]]:
    """A server of one answer for each connection; gives its port, and which of its handshakes were resumed."""
    resumed: list[bool] = []
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                accepted, _ = listener.accept()
            except OSError:
                return
            accepted.settimeout(10)
            with suppress(OSError), context.wrap_socket(accepted, server_side=True) as connection:
                resumed.append(bool(connection.session_reused))
                if connection.recv(65536):
                    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield listener.getsockname()[1], resumed
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(20)


def ask(sidecar: InProcess, port: int, host: str) -> None:
    context = ssl.create_default_context(cafile=str(sidecar.bundle))
    with tls(sidecar, port, host, context) as connection:
        assert " 200 OK" in get(connection, host)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_session_is_resumed_for_its_own_name_until_the_trust_is_read_anew(
    version: ssl.TLSVersion, tmp_path: Path
) -> None:
    root = Root(tmp_path)
    context = root.context(*NAMES)
    context.maximum_version = version
    with (
        answering(context) as (port, resumed),
        in_process(tmp_path, POLICY, upstream_ca=root.pem, names=NAMES) as sidecar,
    ):
        ask(sidecar, port, "a.test")
        ask(sidecar, port, "a.test")
        ask(sidecar, port, "a.test")
        assert resumed == [False, True, True]

        ask(sidecar, port, "b.test")
        assert resumed[3:] == [False], "a session of one name isn't used for another"

        session = sidecar.session
        anew = load_upstreams(session.policy(), session.upstreams.root_files)
        sidecar.call(lambda: session.put_in_force(session.policy(), anew))
        ask(sidecar, port, "a.test")
        ask(sidecar, port, "a.test")
        assert resumed[4:] == [False, True], "what was verified by other trust is verified again"
