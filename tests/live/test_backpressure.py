"""HTTP/2's windows are passed on: a client that doesn't read makes nobody else's bytes wait in the sidecar."""

import time
from pathlib import Path

import h2.events
import pytest

from tests.live.sidecars import running, until
from tests.live.upstreams import Root, serving
from tests.live.wire import Http2Client, secure

pytestmark = pytest.mark.live

MIB = 1 << 20
SIZE = 256 * MIB
POLICY = "version: 1\ndefault: allow\nnetwork: {allow_addresses: [127.0.0.0/8]}\n"


def test_a_client_that_opens_no_window_makes_the_sidecar_hold_little(tmp_path: Path) -> None:
    root = Root(tmp_path)
    with serving(root.context("up.test", alpn=("h2",)), http2=True) as (port, _):
        arguments = ["--upstream-ca", str(root.pem), "--resolve", "up.test:127.0.0.1"]
        with (
            running(tmp_path / "s", POLICY, *arguments) as sidecar,
            secure(sidecar, f"up.test:{port}", alpn=("h2",)) as sock,
        ):
            client = Http2Client(sock)
            before = sidecar.peak_rss()
            authority, path = f"up.test:{port}", f"/bytes/{SIZE}"
            head = [(":method", "GET"), (":scheme", "https"), (":authority", authority), (":path", path)]
            client.h2.send_headers(1, head, end_stream=True)
            sock.sendall(client.h2.data_to_send())
            got = 0
            while got < 65_535:  # all that the first window has room for
                for event in client.h2.receive_data(sock.recv(65_536)):
                    got += len(event.data) if isinstance(event, h2.events.DataReceived) else 0
                sock.sendall(client.h2.data_to_send())
            seen = [(time.monotonic(), sidecar.peak_rss())]

            def settled() -> bool | None:
                if sidecar.peak_rss() != seen[-1][1]:
                    seen.append((time.monotonic(), sidecar.peak_rss()))
                return time.monotonic() - seen[-1][0] > 2 or None

            until(settled, "end of growth")
            held = sidecar.peak_rss() - before

            # Once it reads, all arrives.
            client.h2.increment_flow_control_window(2**30)
            client.h2.increment_flow_control_window(2**30, 1)
            sock.sendall(client.h2.data_to_send())
            while got < SIZE:
                for event in client.h2.receive_data(sock.recv(1 << 20)):
                    got += len(event.data) if isinstance(event, h2.events.DataReceived) else 0

    assert got == SIZE
    assert held < 50 * MIB
