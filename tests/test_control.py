"""Health and the control API: asked over real sockets of a running sidecar, and their decisions as values."""

import asyncio
import json
import os
import signal
import socket
import stat
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from sidecar.control.client import ControlClient, Unreachable
from sidecar.control.messages import MessageError, kept_json, parse_announcement, parse_kept, parse_report, report_json
from sidecar.control.readiness import Facts, FenceMode, not_ready, not_started, notes
from sidecar.control.sockets import KeptReport, bind_control
from sidecar.errors import CannotRun
from sidecar.fence.canaries import canary_line
from sidecar.fence.verdict import Report, Result, Verdict
from tests.live.sidecars import SECONDS, Sidecar, running, until

NOW = datetime(2026, 6, 1, tzinfo=UTC)
DENY, ALLOW = "version: 1\ndefault: deny\n", "version: 1\ndefault: allow\n"
NONCE = "0123456789abcdef" * 2


def report(*verdicts: Verdict) -> Report:
    return Report(tuple(Result(f"c{n}", "192.0.2.1:443", "held", "seen", v) for n, v in enumerate(verdicts)))


HELD, ESCAPED = report(Verdict.HELD), report(Verdict.HELD, Verdict.GOT_THROUGH)
READY = Facts(
    now=NOW,
    listening=True,
    not_before=NOW - timedelta(hours=1),
    not_after=NOW + timedelta(hours=1),
    generation=1,
    fence_mode=FenceMode.STRICT,
    fence=HELD,
    stopping=False,
)


@pytest.mark.parametrize(
    ("facts", "started", "missing"),
    [
        pytest.param(READY, True, [], id="all is well"),
        pytest.param(replace(READY, listening=False), False, ["listeners"], id="a listener isn't open"),
        pytest.param(replace(READY, generation=0), False, ["policy"], id="there is no policy"),
        pytest.param(replace(READY, now=READY.not_after), True, ["ca"], id="the CA has expired"),
        pytest.param(replace(READY, now=NOW - timedelta(hours=2)), True, ["ca"], id="the CA isn't valid yet"),
        pytest.param(replace(READY, fence=None), True, ["redirect"], id="strict waits for the fence check"),
        pytest.param(replace(READY, fence=ESCAPED), True, ["redirect"], id="strict wants it held"),
        pytest.param(replace(READY, fence=report(Verdict.SKIPPED)), True, ["redirect"], id="strict wants any held"),
        pytest.param(replace(READY, fence=ESCAPED, fence_mode=FenceMode.REPORT), True, [], id="report only tells"),
        pytest.param(replace(READY, fence=None, fence_mode=FenceMode.OFF), True, [], id="off asks for none"),
        pytest.param(replace(READY, stopping=True), True, ["stopping"], id="told to end"),
    ],
)
def test_readiness(facts: Facts, started: bool, missing: list[str]) -> None:
    assert [condition.condition for condition in not_ready(facts)] == missing
    assert (not not_started(facts)) is started


@pytest.mark.parametrize(
    ("facts", "noted"),
    [
        pytest.param(READY, [], id="all is well"),
        pytest.param(replace(READY, ca_problems=("ca.pem: x",)), ["ca_reload"], id="the mounted CA is invalid"),
        pytest.param(replace(READY, ca_pending="why"), ["ca_rotation"], id="a new root waits"),
        pytest.param(replace(READY, ca_expiring=True), ["ca_expiring"], id="the CA's end is near"),
        pytest.param(replace(READY, ca_expiring=True, now=READY.not_after), [], id="over is a reason, not a note"),
    ],
)
def test_notes_make_nothing_unready(facts: Facts, noted: list[str]) -> None:
    assert [condition.condition for condition in notes(facts)] == noted
    assert [condition.condition for condition in not_ready(facts)] == (["ca"] if facts.now != NOW else [])


def test_messages_survive_the_way() -> None:
    assert parse_report(report_json(ESCAPED).encode()) == ESCAPED


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b'{"canaries": []}', id="no canary"),
        pytest.param(b'{"canaries": [{"canary": "c", "verdict": "held"}]}', id="a canary without its fields"),
        pytest.param(report_json(HELD).replace("held", "fine").encode(), id="a verdict that doesn't exist"),
        pytest.param(report_json(report(*[Verdict.HELD] * 200)).replace("[", "[{},", 1).encode(), id="too many"),
        pytest.param(report_json(HELD).replace("seen\":\"seen", "seen\":\"" + "x" * 501).encode(), id="a long text"),
    ],
)  # fmt: skip
def test_a_report_that_is_none_is_refused(body: bytes) -> None:
    with pytest.raises(MessageError):
        parse_report(body)


def test_nonces_are_hexadecimal() -> None:
    assert parse_announcement(f'{{"nonces": ["{NONCE}"]}}'.encode()) == (NONCE,)
    with pytest.raises(MessageError, match=r"nonces\.0"):
        parse_announcement(b'{"nonces": ["../v1/status"]}')


def test_a_kept_report_counts_in_its_own_network_namespace_only() -> None:
    kept = kept_json(HELD, "boot/1").encode()

    assert parse_kept(kept, "boot/1") == HELD
    assert parse_kept(kept, "boot/2") is None
    assert parse_kept(b"{", "boot/1") is None


def test_a_report_is_kept_beside_the_control_socket(tmp_path: Path) -> None:
    kept = KeptReport(tmp_path / "control.sock")
    assert kept.load() is None
    kept.save(ESCAPED)
    assert kept.load() == ESCAPED
    assert [stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()] == [0o600]


@pytest.mark.parametrize("mode", [0o600, 0o660])
def test_the_control_socket_has_its_mode_whatever_the_umask(tmp_path: Path, mode: int) -> None:
    before = os.umask(0)
    try:
        with bind_control(tmp_path / "c", mode=mode):
            assert stat.S_IMODE((tmp_path / "c").stat().st_mode) == mode
            assert os.umask(0) == 0, "the umask is put back"
    finally:
        os.umask(before)


def test_a_socket_that_was_left_behind_is_replaced_but_not_one_in_use(tmp_path: Path) -> None:
    path = tmp_path / "c"
    bind_control(path).close()
    with bind_control(path), pytest.raises(CannotRun, match="another sidecar listens there"):
        bind_control(path)


def test_a_file_is_never_replaced_by_a_socket(tmp_path: Path) -> None:
    (tmp_path / "c").write_text("mine")
    with pytest.raises(CannotRun, match="something else is there"):
        bind_control(tmp_path / "c")
    assert (tmp_path / "c").read_text() == "mine"


def test_without_a_sidecar_the_client_says_what_to_do(tmp_path: Path) -> None:
    async def ask() -> None:
        async with ControlClient(tmp_path / "none.sock") as client:
            await client.started()

    with pytest.raises(Unreachable, match="start it with --control-socket"):
        asyncio.run(ask())


def control(path: Path, method: str, target: str, body: str = "") -> tuple[int, Any]:
    """One request to the control API, by hand."""
    with socket.socket(socket.AF_UNIX) as stream:
        stream.settimeout(SECONDS)
        stream.connect(str(path))
        head = f"{method} {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n"
        stream.sendall((head + body).encode())
        answer = b"".join(iter(lambda: stream.recv(65536), b""))
    head, _, content = answer.decode().partition("\r\n\r\n")
    assert "\r\nServer:" not in head
    return int(head.split()[1]), json.loads(content) if content.startswith("{") else None


def health(path: Path, target: str) -> tuple[int, Any]:
    listeners = control(path, "GET", "/v1/status")[1]["listeners"]
    address = next(listener["address"] for listener in listeners if listener["kind"] == "health")
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"http://{address}{target}", timeout=SECONDS) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as e:
        return e.code, json.load(e)


def options(path: Path, *more: str) -> tuple[str, ...]:
    return "--control-socket", str(path), "--health-listen", "127.0.0.1:0", *more


@pytest.mark.live
def test_a_running_sidecar_says_how_it_is(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    with running(tmp_path, DENY, *options(path)) as sidecar:
        code, status = control(path, "GET", "/v1/status")
        loaded, ca = sidecar.event("policy_loaded"), sidecar.event("ca_loaded")

        assert code == 200
        assert (status["session"], status["started"], status["ready"]) == ("test-session", True, True)
        assert status["policy"] == {"generation": 1, "hash": loaded["policy_hash"]}
        assert status["ca"]["fingerprint_sha256"] == ca["fingerprint_sha256"]
        assert datetime.fromisoformat(status["ca"]["not_after"]) == datetime.fromisoformat(ca["not_after"])
        assert {"kind": "explicit", "address": sidecar.listen} in status["listeners"]
        assert status["fence"] == {"mode": "off", "report": None}
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        for target in ("/livez", "/startupz", "/readyz"):
            assert health(path, target)[0] == 200, target
        assert control(path, "GET", "/v1/secrets")[0] == 404
    assert not path.exists(), "the socket is taken away at the end"


@pytest.mark.live
def test_only_announced_canaries_are_noted_and_they_are_no_denials(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    with running(tmp_path, DENY, *options(path)) as sidecar:
        assert control(path, "POST", "/v1/canaries", json.dumps({"nonces": [NONCE]}))[0] == 204
        assert control(path, "GET", f"/v1/canaries/{NONCE}") == (200, {"seen": False})

        say(sidecar, canary_line(NONCE))
        assert control(path, "GET", f"/v1/canaries/{NONCE}") == (200, {"seen": True})
        closed = sidecar.event("connection_closed")
        assert (closed["level"], closed["host"]) == ("info", None)
        assert "canary of the fence check" in closed["detail"]

        say(sidecar, canary_line("f" * 32))
        assert sidecar.event("connection_denied")["reason"] == "not_http"
        assert control(path, "GET", f"/v1/canaries/{'f' * 32}") == (200, {"seen": False})
        assert control(path, "GET", "/v1/canaries/x")[0] == 400


def say(sidecar: Sidecar, line: bytes) -> None:
    """Send raw bytes to the proxy, and wait until it hangs up."""
    with socket.create_connection(("127.0.0.1", sidecar.port), SECONDS) as stream:
        stream.sendall(line)
        assert stream.recv(1) == b""


@pytest.mark.live
def test_strict_mode_is_ready_only_while_the_last_check_held(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    with running(tmp_path, DENY, *options(path, "--fence", "strict")) as sidecar:
        assert health(path, "/startupz")[0] == 200, "canaries are no matter of having started"
        code, answer = health(path, "/readyz")
        assert (code, answer["ready"], answer["reasons"][0]["condition"]) == (503, False, "redirect")

        assert control(path, "POST", "/v1/fence", report_json(HELD)) == (200, {"held": True})
        assert health(path, "/readyz") == (200, {"ready": True, "reasons": []})
        assert not sidecar.events("canary_failed")

        assert control(path, "POST", "/v1/fence", report_json(ESCAPED)) == (200, {"held": False})
        code, answer = health(path, "/readyz")
        assert (code, answer["reasons"][0]["detail"]) == (503, "the fence check failed: c1")
        failed = sidecar.event("canary_failed")
        assert (failed["canary"], failed["expected"]) == ("c1", "held")
        assert failed["seen"] == "got_through: seen (192.0.2.1:443)"

        assert control(path, "POST", "/v1/fence", '{"held": true}')[0] == 400
        assert health(path, "/readyz")[0] == 503


@pytest.mark.live
def test_a_restarted_sidecar_remembers_that_its_fence_held(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    with running(tmp_path / "first", DENY, *options(path, "--fence", "strict")):
        assert control(path, "POST", "/v1/fence", report_json(HELD))[0] == 200
    with running(tmp_path / "second", DENY, *options(path, "--fence", "strict")):
        assert health(path, "/readyz")[0] == 200


@pytest.mark.live
def test_at_sigterm_it_is_not_ready_before_it_ends(tmp_path: Path) -> None:
    path, policy = tmp_path / "control.sock", f"{ALLOW}network: {{allow_addresses: [127.0.0.0/8]}}\n"
    with (
        running(tmp_path, policy, *options(path, "--drain-seconds", "10")) as sidecar,
        socket.create_server(("127.0.0.1", 0)) as server,
        running_request(sidecar, server),  # without an answer, it keeps the sidecar draining
    ):
        sidecar.process.send_signal(signal.SIGTERM)

        def stopping() -> bool:
            code, answer = health(path, "/readyz")
            return code == 503 and answer["reasons"][0]["condition"] == "stopping"

        until(stopping, "answer that it is stopping")
        assert sidecar.process.poll() is None


@contextmanager
def running_request(sidecar: Sidecar, server: socket.socket) -> Iterator[None]:
    """A request that the upstream has got and doesn't answer."""
    with socket.create_connection(("127.0.0.1", sidecar.port), SECONDS) as stream:
        target = f"127.0.0.1:{server.getsockname()[1]}"
        stream.sendall(f"GET http://{target}/ HTTP/1.1\r\nHost: {target}\r\n\r\n".encode())
        server.settimeout(SECONDS)
        with server.accept()[0] as upstream:
            assert upstream.recv(1)
            yield


@pytest.mark.live
def test_the_usual_health_port_is_no_obstacle_to_a_second_sidecar(tmp_path: Path) -> None:
    with running(tmp_path / "one", DENY), running(tmp_path / "two", DENY):
        pass


@pytest.mark.live
def test_a_health_port_that_was_asked_for_must_be_free(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        message = f"--health-listen 127.0.0.1 port {port}: the port is in use"
        with (
            pytest.raises(AssertionError, match=message),
            running(tmp_path, DENY, "--health-listen", f"127.0.0.1:{port}"),
        ):
            pass


@pytest.mark.live
def test_health_can_be_turned_off(tmp_path: Path) -> None:
    path = tmp_path / "c"
    with running(tmp_path, DENY, "--control-socket", str(path), "--health-listen", "none"):
        kinds = {listener["kind"] for listener in control(path, "GET", "/v1/status")[1]["listeners"]}
    assert kinds == {"explicit"}
