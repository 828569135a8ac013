"""What signals do to a running sidecar: the first waits for requests in flight, the second doesn't; nothing is lost."""

import os
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.live.sidecars import Sidecar, running

pytestmark = pytest.mark.live

_PATIENCE = 300.0  # of the drain; far more than a test takes


@contextmanager
def with_a_request_in_flight(folder: Path) -> Iterator[Sidecar]:
    """A sidecar that waits for an upstream that never answers."""
    with socket.create_server(("127.0.0.1", 0)) as upstream:
        port = upstream.getsockname()[1]
        policy = f"""
version: 1
rules:
  - allow: ["127.0.0.1"]
    ports: [{port}]
network:
  allow_addresses: ["127.0.0.1"]
"""
        with (
            running(folder, policy, "--drain-seconds", str(_PATIENCE)) as sidecar,
            socket.create_connection(("127.0.0.1", sidecar.port)) as client,
        ):
            client.sendall(f"GET http://127.0.0.1:{port}/ HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode())
            sidecar.event("request_allowed")
            yield sidecar


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_ends_the_wait_for_requests_in_flight(tmp_path: Path, number: signal.Signals) -> None:
    with with_a_request_in_flight(tmp_path) as sidecar:
        began = time.monotonic()
        os.kill(sidecar.process.pid, number)
        time.sleep(0.3)  # the first one has begun to wait
        still = sidecar.process.poll()
        os.kill(sidecar.process.pid, number)
        code = sidecar.process.wait(_PATIENCE)

        assert (still, code) == (None, 0)
        assert time.monotonic() - began < _PATIENCE / 10
        assert sidecar.events("request_failed")[0]["reason"] == "shutdown"
        assert "1 request(s) had not finished" in sidecar.stderr


def test_an_impatient_user_still_gets_the_summary(tmp_path: Path) -> None:
    with with_a_request_in_flight(tmp_path) as sidecar:
        while sidecar.process.poll() is None:
            sidecar.process.send_signal(signal.SIGINT)
            time.sleep(0.002)

        assert sidecar.process.returncode in (0, -signal.SIGINT)  # the interpreter's own end can be hit, too
        assert sidecar.events()[-1]["event"] == "session_ended"
        sidecar.process.returncode = 0


def test_a_watched_folder_is_not_logged_about(tmp_path: Path) -> None:
    with running(tmp_path, "version: 1\n", "--log-level", "info") as sidecar:
        # Its events file and its log lie beside the policy: a line about a change would be a change.
        for generation, default in ((2, "allow"), (3, "deny")):
            (tmp_path / "policy.yaml").write_text(f"version: 1\ndefault: {default}\n")
            sidecar.event("policy_loaded", generation=generation)

        assert "watchfiles" not in sidecar.stderr
