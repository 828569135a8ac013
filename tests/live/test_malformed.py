"""What is no request gets a problem document, too, and nothing of it goes upstream."""

from pathlib import Path

import pytest

from tests.live.sidecars import running
from tests.live.upstreams import Root, serving
from tests.live.wire import secure

pytestmark = pytest.mark.live

POLICY = "version: 1\ndefault: allow\nnetwork: {allow_addresses: [127.0.0.0/8]}\n"


@pytest.mark.parametrize(
    "request_",
    [
        pytest.param(b"GET / HTTP/1.1\r\nHost: up.test\r\nContent-Length: x\r\n\r\n", id="a length that is no number"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: up.test\r\nno colon\r\n\r\n", id="a header without a colon"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: up.test\r\nTransfer-Encoding: x\r\n\r\n", id="an unknown coding"),
        pytest.param(
            b"POST / HTTP/1.1\r\nHost: up.test\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            id="two framings",
        ),
    ],
)
def test_a_malformed_request_is_told_so_in_json(request_: bytes, tmp_path: Path) -> None:
    root = Root(tmp_path)
    with serving(root.context("up.test")) as (port, upstream):
        arguments = ["--upstream-ca", str(root.pem), "--resolve", "up.test:127.0.0.1"]
        with running(tmp_path / "s", POLICY, *arguments) as sidecar, secure(sidecar, f"up.test:{port}") as sock:
            sock.sendall(request_)
            data = b""
            while piece := sock.recv(65536):
                data += piece

    head, _, body = data.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 ")
    assert b"application/problem+json" in head
    assert b'"reason":"malformed_request"' in body
    assert upstream.requests == []
