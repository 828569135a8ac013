"""An exception inside any guarding hook refuses the request at hand, dials nothing, and says so."""

import inspect
import re
import socket
import ssl
from pathlib import Path
from typing import Any

import pytest

from addons import guard
from addons.gate import Gate
from addons.protocol import Protocol
from addons.session_ca import SessionCaAddon
from addons.upstream import Upstream
from addons.upstream_tls import UpstreamTls
from tests.live.inprocess import InProcess, in_process
from tests.live.upstreams import Root, serving

pytestmark = pytest.mark.live

ADDONS: tuple[type, ...] = (Protocol, Gate, SessionCaAddon, Upstream, UpstreamTls)
GUARDED = [(addon, hook) for addon in ADDONS for hook in guard.REFUSALS if hook in vars(addon)]
POLICY = "version: 1\ndefault: allow\nnetwork: {allow_addresses: [127.0.0.0/8]}\n"


def read(connection: socket.socket) -> str:
    """One answer, head and body."""
    data = b""
    while b"\r\n\r\n" not in data:
        if not (piece := connection.recv(65536)):
            raise ConnectionError(f"ended within the head: {data!r}")
        data += piece
    head, _, body = data.partition(b"\r\n\r\n")
    length = re.search(rb"(?i)content-length: (\d+)", head)
    while length and len(body) < int(length[1]):
        body += connection.recv(65536)
    return (head + b"\r\n\r\n" + body).decode()


def get(sidecar: InProcess, port: int, head: str = "GET / HTTP/1.1\r\nHost: up.test\r\n\r\n") -> str:
    """CONNECT, TLS, one request; the answer, or what went wrong instead."""
    try:
        with socket.create_connection(("127.0.0.1", sidecar.port), 10) as raw:
            raw.settimeout(10)
            raw.sendall(f"CONNECT up.test:{port} HTTP/1.1\r\nHost: up.test:{port}\r\n\r\n".encode())
            answer = read(raw)
            if " 200 " not in answer:
                return answer
            context = ssl.create_default_context(cafile=str(sidecar.bundle))
            with context.wrap_socket(raw, server_hostname="up.test") as tls:
                tls.sendall(head.encode())
                return read(tls)
    except OSError as e:
        return f"closed: {type(e).__name__}"


def test_every_guarding_hook_is_known() -> None:
    found = {(addon.__name__, hook) for addon, hook in GUARDED}

    assert found == {
        ("Protocol", "client_connected"),
        ("Protocol", "next_layer"),
        ("Protocol", "tls_clienthello"),
        ("Gate", "http_connect"),
        ("Gate", "requestheaders"),
        ("Gate", "responseheaders"),
        ("SessionCaAddon", "tls_clienthello"),
        ("SessionCaAddon", "tls_start_client"),
        ("Upstream", "server_connect"),
        ("UpstreamTls", "server_connect"),
        ("UpstreamTls", "tls_start_server"),
    }
    for addon, hook in GUARDED:
        assert hasattr(vars(addon)[hook], "__wrapped__"), f"{addon.__name__}.{hook} isn't wrapped by fails_closed"


@pytest.mark.parametrize(
    ("addon", "hook"),
    [pytest.param(*pair, id=f"{pair[0].__name__}.{pair[1]}") for pair in GUARDED],
)
@pytest.mark.parametrize("kind", ["raises", "raises after an await"])
def test_an_exception_in_a_hook_refuses(
    addon: type, hook: str, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def boom(self: Any, data: Any) -> None:
        raise RuntimeError("secret detail")

    async def late(self: Any, data: Any) -> None:
        raise RuntimeError("secret detail")

    broken = guard.guarded(boom if kind == "raises" else late, hook, guard.REFUSALS[hook])
    assert not inspect.iscoroutinefunction(broken)
    monkeypatch.setattr(addon, hook, broken)
    root = Root(tmp_path)

    with (
        serving(root.context("up.test")) as (port, upstream),
        in_process(tmp_path, POLICY, upstream_ca=root.pem, names=("up.test",)) as sidecar,
    ):
        answer = get(sidecar, port)

        error = sidecar.event("internal_error", where=f"{addon.__name__}.{hook}", error="RuntimeError")

    assert "hello" not in answer
    assert "secret detail" not in answer + str(sidecar.events())
    if hook == "responseheaders":
        assert sidecar.events("request_failed", reason="internal_error")
    else:
        assert upstream.requests == []
        assert "200 OK" not in answer
    closing = {"request_denied", "request_failed", "connection_denied", "tls_handshake_failed", "connection_closed"}
    of_connection = [e for e in sidecar.events() if e.get("connection_id") == error["connection_id"]]
    closed = [e["event"] for e in of_connection if e["event"] in closing and e.get("side") != "server"]
    assert len(closed) == 1, of_connection
    if hook in ("http_connect", "requestheaders", "tls_clienthello", "server_connect"):
        assert " 503 " in answer
        assert "internal_error" in answer


def test_the_same_request_goes_through_where_nothing_is_thrown(tmp_path: Path) -> None:
    root = Root(tmp_path)
    with (
        serving(root.context("up.test")) as (port, upstream),
        in_process(tmp_path, POLICY, upstream_ca=root.pem, names=("up.test",)) as sidecar,
    ):
        answer = get(sidecar, port)

    assert "hello from up.test" in answer
    assert len(upstream.requests) == 1
    assert not sidecar.events("internal_error")
