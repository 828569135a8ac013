"""Plays the demo from bootstrap to summary, and checks each outcome."""

import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from pydantic import TypeAdapter

from demo.scenes import SCENES, SESSION, Scene, policy, resolve
from demo.screen import Screen, answer, status_of
from demo.stage import DemoFailed, Line, Stage, staged
from demo.upstream import API, Upstream, serving
from sidecar.cli.tables import summary_table
from sidecar.events.model import Summary

_EVENTS = "events.jsonl"
_EXEC_EVENTS = "exec.jsonl"


def play(screen: Screen, which: str) -> None:
    """
    The whole demo.

    Args:
        which: The client: ``auto``, ``curl`` or ``python``.

    Raises:
        DemoFailed: Something isn't as it should be.
    """
    with staged(which) as stage, serving(stage.folder) as upstream:
        screen.say("HTTPS upstreams listen on 127.0.0.1; names lead there by --resolve; nothing leaves this machine.")
        screen.say("Of the event lines only the most telling fields are shown, and … for the others.")
        _bootstrap(stage, screen)
        process = _start(stage, screen, upstream.port)
        for number, scene in enumerate(SCENES, start=1):
            _scene(stage, screen, upstream, number, scene)
        _exec(stage, screen, upstream.port, len(SCENES) + 1)
        screen.heading("The session's end")
        screen.command("kill %1", "  # SIGTERM")
        process.send_signal(signal.SIGTERM)
        ended = stage.finish(process)
        _check(ended.code == 0, f"the sidecar should end with 0, and ended with {ended.code}: {ended.stderr.strip()}")
        _summary(screen, stage.events(_EVENTS, "session_ended"))


def _bootstrap(stage: Stage, screen: Screen) -> None:
    words = ("bootstrap", "--common-name", SESSION, "--ca-dir", "ca", "--trust-dir", "trust")
    screen.heading("A CA for this session, and the trust bundle for its workload")
    screen.command("sidecar", *words)
    made = stage.run([_sidecar(), *words])
    _check(made.code == 0, f"sidecar bootstrap ended with {made.code}: {made.stderr.strip()}")
    screen.output([line for line in made.stdout.splitlines() if not line.startswith(("Next:", "at "))])


def _start(stage: Stage, screen: Screen, port: int) -> subprocess.Popen[str]:
    (stage.folder / "policy.yaml").write_text(policy(port))
    screen.heading("The policy")
    screen.command("cat policy.yaml")
    screen.output(policy(port).splitlines())
    words = (
        *("run", "--policy", "policy.yaml", "--ca-dir", "ca", "--listen", "127.0.0.1:0", "--events", _EVENTS),
        *("--upstream-ca", "upstream-root.pem", *resolve()),
    )
    screen.heading("The sidecar")
    screen.command("sidecar", *words, "&")
    process = stage.start([_sidecar(), *words])
    lines = stage.events(_EVENTS, "policy_loaded", 3)
    screen.events(lines, _EVENTS)
    proxy = f"http://{lines[0]['listen'][0]}"
    screen.say("The workload gets two things, and needs no other change:")
    screen.command("set -a; . trust/env; set +a")
    screen.command(f"export HTTPS_PROXY={proxy}")
    trust = (line.partition("=") for line in (stage.folder / "trust" / "env").read_text().splitlines() if "=" in line)
    stage.variables |= {name: value for name, _, value in trust} | {"HTTPS_PROXY": proxy}
    return process


def _scene(stage: Stage, screen: Screen, upstream: Upstream, number: int, scene: Scene) -> None:
    screen.heading(f"{number}. {scene.title}", scene.why)
    words = (*scene.arguments, f"https://{scene.host}:{upstream.port}{scene.path}")
    variables = dict(stage.variables)
    without = ("CURL_CA_BUNDLE", "SSL_CERT_FILE")
    if not scene.trusting:
        for name in without:
            variables.pop(name, None)
    prefix = () if scene.trusting else ("env", *(word for name in without for word in ("-u", name)))
    screen.command(*prefix, _client(stage), *map(shlex.quote, words))
    connections, requests = upstream.connections, upstream.requests
    outcome = stage.run([*stage.client, *words], variables)
    text = "\n".join(answer(outcome.stdout, outcome.stderr))
    screen.output(answer(outcome.stdout, outcome.stderr, whole=scene.whole))
    _check(outcome.code == scene.code, f"the client should end with {scene.code}, and ended with {outcome.code}")
    status = status_of(outcome.stdout + "\n" + outcome.stderr) if scene.status else None
    _check(status == scene.status, f"the client should be answered {scene.status}, and was answered {status}")
    for words_ in scene.prints:
        _check(words_ in text, f"the client's output should have {words_!r} in it")
    lines = stage.events(_EVENTS, scene.events[-1]["event"], len(scene.events))
    screen.events(lines, _EVENTS)
    _match(lines, scene.events)
    reached = "connection" if upstream.connections > connections else "nothing"
    reached = "request" if upstream.requests > requests else reached
    # An earlier client's connection may serve this one, too; then there is no new one.
    fine = {"connection", "nothing"} if scene.reaches == "connection" else {scene.reaches}
    _check(reached in fine, f"the upstream should have got {scene.reaches}, and got {reached}")
    screen.proven(scene.proves)


def _exec(stage: Stage, screen: Screen, port: int, number: int) -> None:
    screen.heading(
        f"{number}. One command with a sidecar of its own", "CA, bundle, proxy and variables for this command alone."
    )
    options = (
        *("--policy", "policy.yaml", "--events", _EXEC_EVENTS),
        *("--upstream-ca", "upstream-root.pem", "--resolve", f"{API}:127.0.0.1"),
    )
    words = ("-sSi", f"https://{API}:{port}/repos/exec")
    screen.command("sidecar exec", *options, "--", _client(stage), *words)
    plain = {name: value for name, value in stage.variables.items() if name != "HTTPS_PROXY"}
    outcome = stage.run([_sidecar(), "exec", *options, "--", *stage.client, *words], plain)
    screen.output(answer(outcome.stdout, ""))
    screen.output(outcome.stderr.rstrip().splitlines())
    _check(outcome.code == 0, f"sidecar exec should end with 0, and ended with {outcome.code}")
    _check(status_of(outcome.stdout) == 200, "the command's client should be answered 200")
    lines = stage.events(_EXEC_EVENTS, "session_ended", 6)
    expected = ("session_started", "ca_loaded", "policy_loaded", "request_allowed", "request_closed", "session_ended")
    _match(lines, [{"event": name} for name in expected])
    screen.events([line for line in lines if line["event"].startswith("request_")], _EXEC_EVENTS)
    left = list(stage.folder.glob("egress-*"))
    _check(not left, f"sidecar exec should leave nothing behind, and left {[path.name for path in left]}")
    screen.proven("the command's own exit code; the CA's key was never written, its folder is gone")


def _summary(screen: Screen, lines: Sequence[Line]) -> None:
    summary = TypeAdapter(Summary).validate_python(lines[-1]["summary"])
    screen.show(summary_table(summary))
    closing = [line for scene in SCENES for line in scene.events]
    for kind, counted in (
        ("request_allowed", summary.requests_allowed),
        ("request_denied", summary.requests_denied),
        ("request_failed", summary.requests_failed),
        ("connection_allowed", summary.connections_allowed),
        ("tls_handshake_failed", summary.handshakes_failed),
    ):
        expected = sum(line["event"] == kind for line in closing)
        _check(counted == expected, f"the summary should count {expected} {kind}, and counts {counted}")
    _check(summary.events_dropped == 0, f"{summary.events_dropped} events were dropped")
    numbers = lines[-1]["seq"] + 1
    screen.proven(f"{numbers} event lines, none dropped; each request and each connection has one closing record")


def _match(lines: Sequence[Line], expected: Sequence[Line]) -> None:
    kinds, expected_kinds = [line["event"] for line in lines], [fields["event"] for fields in expected]
    _check(kinds == expected_kinds, f"the events should be {expected_kinds}, and are {kinds}")
    for line, fields in zip(lines, expected, strict=True):
        for name, value in fields.items():
            _check(line.get(name) == value, f"{line['event']}: {name} should be {value!r}, and is {line.get(name)!r}")


def _check(holds: bool, text: str) -> None:
    if not holds:
        raise DemoFailed(text)


def _sidecar() -> str:
    script = Path(sys.executable).with_name("sidecar")
    _check(os.access(script, os.X_OK), f"there is no sidecar command beside {sys.executable}; run make venv")
    return str(script)


def _client(stage: Stage) -> str:
    return "curl" if stage.client[0] == "curl" else "python client.py"
