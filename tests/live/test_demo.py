"""``make demo`` shows what is true, and leaves nothing behind, however it ends."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from demo.screen import answer, shorten
from tests.live.sidecars import SECONDS

pytestmark = pytest.mark.live

ROOT = Path(__file__).parents[2]


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """The demo in a session of its own, with the Python client; its temporary folder lies in *tmp_path*."""
    process = subprocess.Popen(
        [sys.executable, "-m", "demo", "--client", "python"], cwd=ROOT, env=os.environ | {"TMPDIR": str(tmp_path)},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, encoding="utf-8", start_new_session=True,
    )  # fmt: skip
    yield process
    if process.poll() is None:
        process.kill()
        process.communicate()


def of_session(number: int) -> list[str]:
    """The processes of a session that still run."""
    found = []
    for process in psutil.process_iter(["pid", "name", "status"]):
        try:
            if os.getsid(process.pid) == number and process.info["status"] != psutil.STATUS_ZOMBIE:
                found.append(process.info["name"])
        except ProcessLookupError:
            continue
    return found


def test_every_step_is_as_it_says(demo: subprocess.Popen[str], tmp_path: Path) -> None:
    stdout, stderr = demo.communicate(timeout=3 * SECONDS)

    assert (demo.returncode, stderr) == (0, ""), stdout
    assert re.findall(r"^([0-9]+)\. ", stdout, re.MULTILINE) == [str(number) for number in range(1, 11)]
    assert "\x1b" not in stdout  # not a terminal: plain text
    assert list(tmp_path.iterdir()) == []
    assert of_session(demo.pid) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupted_demo_leaves_nothing_behind(
    demo: subprocess.Popen[str], tmp_path: Path, number: signal.Signals
) -> None:
    assert demo.stdout is not None
    for line in demo.stdout:
        if line.startswith("1. "):  # the sidecar runs by now
            break
    assert list(tmp_path.iterdir())

    os.killpg(demo.pid, number)
    os.killpg(demo.pid, number)  # impatiently
    _, stderr = demo.communicate(timeout=SECONDS)

    assert demo.returncode == 130
    assert "Traceback" not in stderr
    assert list(tmp_path.iterdir()) == []
    assert of_session(demo.pid) == []


def test_a_missing_client_is_one_clear_line(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "demo", "--client", "curl"], cwd=ROOT, env={"PATH": "/none", "TMPDIR": str(tmp_path)},
        capture_output=True, text=True, timeout=SECONDS,
    )  # fmt: skip

    assert ended.returncode == 1
    assert ended.stdout.strip().endswith("there is no curl on the PATH; install it, or take --client python")
    assert list(tmp_path.iterdir()) == []


def test_a_shortened_event_says_so_and_changes_no_value() -> None:
    line = {"event": "request_denied", "seq": 3, "rule": None, "host": "a.test", "detail": "…"}

    assert shorten(line) == '{"event": "request_denied", "seq": 3, "host": "a.test", …}'


def test_an_answer_has_the_last_status_line_not_that_of_connect() -> None:
    stdout = "HTTP/1.1 200 Connection established\r\n\r\nHTTP/1.1 403 Forbidden\r\nServer: x\r\n\r\nno\n"

    assert answer(stdout, "") == ["HTTP/1.1 403 Forbidden", "no"]
