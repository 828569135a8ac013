"""The addons under stock ``mitmdump -s`` and ``mitmweb -s``: the same verdicts, and no CA made behind our back."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest

from sidecar.pki.session_ca import issue_session_ca
from tests.live.mounted import rename_over
from tests.live.sidecars import Sidecar, make_trust, until
from tests.live.upstreams import Root, serving
from tests.live.wire import ask, dial, get, secure

pytestmark = pytest.mark.live

SCRIPT = Path(__file__).parents[2] / "addons" / "egress.py"
POLICY = """\
version: 1
rules:
  - allow: [api.test]
    ports: [{port}]
    methods: [GET]
network: {{allow_addresses: [127.0.0.0/8]}}
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def command(program: str, port: int, *options: str) -> list[str]:
    web = ["--no-web-open-browser", "--web-port", str(free_port())] if program == "mitmweb" else []
    tool = Path(sys.executable).with_name(program)
    return [str(tool), "-s", str(SCRIPT), "--listen-host", "127.0.0.1", "-p", str(port), *web, *options]


@contextmanager
def stock(
    folder: Path, program: str, upstream_ca: Path, policy: str, *names: str, options: Sequence[str] = ()
) -> Iterator[Sidecar]:
    """Run it; *names*, beside two that are always known, lead to 127.0.0.1."""
    ca, trust = make_trust(folder)
    (folder / "policy.yaml").write_text(policy)
    home = folder / "home"
    home.mkdir()
    events, stderr = folder / "events.jsonl", folder / "stderr.txt"
    variables = os.environ | {
        "HOME": str(home),
        "EGRESS_POLICY": str(folder / "policy.yaml"),
        "EGRESS_CA_DIR": str(ca),
        "EGRESS_UPSTREAM_CA": str(upstream_ca),
        "EGRESS_EVENTS": str(events),
        "EGRESS_RESOLVE": " ".join(f"{name}:127.0.0.1" for name in ("api.test", "denied.test", *names)),
    }
    with stderr.open("wb") as log:
        process = subprocess.Popen(
            command(program, free_port(), *options), env=variables, stdout=log, stderr=log, stdin=subprocess.DEVNULL
        )
    try:
        yield Sidecar(process, events, trust, stderr)
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    assert list(home.rglob("*")) == [], "a stray file, such as ~/.mitmproxy"


def curl(sidecar: Sidecar, url: str, *options: str) -> str:
    bundle = str(sidecar.trust / "bundle.pem")
    run = ["curl", "-sS", "-i", "--max-time", "50", "-x", sidecar.proxy, "--cacert", bundle, *options, url]
    result = subprocess.run(run, capture_output=True, text=True, timeout=60)
    return result.stdout + result.stderr


@pytest.mark.parametrize("program", ["mitmdump", "mitmweb"])
def test_stock_mitmproxy_with_our_addons(program: str, tmp_path: Path) -> None:
    root = Root(tmp_path)
    with serving(root.context("api.test", "denied.test")) as (port, upstream):
        with stock(tmp_path, program, root.pem, POLICY.format(port=port)) as sidecar:
            allowed = curl(sidecar, f"https://api.test:{port}/")
            by_method = curl(sidecar, f"https://api.test:{port}/", "-d", "x")
            by_name = curl(sidecar, f"https://denied.test:{port}/")
            onboarding = curl(sidecar, "http://mitm.it/")
            sidecar.event("request_closed")

        assert "hello from api.test" in allowed
        assert "403" in by_method
        assert "default_deny" in by_method
        assert "403" in by_name
        assert "default_deny" in by_name
        assert "default_deny" in onboarding
        assert len(upstream.requests) == 1
        assert sidecar.event("session_ended")["summary"]["requests_denied"] == 3


LIMITS_REACHED = {
    "head_bytes": "head_too_large",
    "head_seconds": "head_too_slow",
    "client_connections": "too_many_connections",
}


def test_limits_hold_under_stock_mitmproxy(tmp_path: Path) -> None:
    root, limits = Root(tmp_path), "egress_limit=client_connections=2 head_bytes=4096 head_seconds=1"
    with (
        serving(root.context("api.test")) as (port, _),
        stock(tmp_path, "mitmdump", root.pem, POLICY.format(port=port), options=("--set", limits)) as sidecar,
    ):
        with secure(sidecar, f"api.test:{port}") as one, dial(sidecar) as other:
            assert ask(one, get(f"api.test:{port}", "/large", "X: " + "x" * 5000)).status == 431
            other.sendall(b"GET / HTTP/1.1\r\n")
            other.settimeout(20)
            while other.recv(1024):  # a 408 may come before the end
                pass
        with dial(sidecar) as one, dial(sidecar), dial(sidecar) as third:
            third.settimeout(20)
            assert third.recv(1024) == b""
            one.close()
        reached = {name: sidecar.event("limit_reached", limit=name)["reason"] for name in LIMITS_REACHED}
    assert reached == LIMITS_REACHED


def test_stock_mitmproxy_follows_the_ca(tmp_path: Path) -> None:
    root = Root(tmp_path)
    with (
        serving(root.context("api.test")) as (port, _),
        stock(tmp_path, "mitmdump", root.pem, POLICY.format(port=port)) as sidecar,
    ):
        assert "hello from api.test" in curl(sidecar, f"https://api.test:{port}/")
        fresh = issue_session_ca(common_name="fresh", now=datetime.now(UTC))
        rename_over(tmp_path / "ca", {"ca.pem": fresh.chain_pem(), "ca-key.pem": fresh.key_pem()})
        rotated = sidecar.event("ca_rotated")
        (sidecar.trust / "bundle.pem").write_bytes(fresh.root_pem())
        assert "hello from api.test" in curl(sidecar, f"https://api.test:{port}/")
    assert (rotated["reason"], rotated["fingerprint_sha256"]) == ("no_trust_bundle", fresh.fingerprint())


@pytest.mark.parametrize(
    ("options", "says"),
    [
        pytest.param(["--ssl-insecure"], "ssl_insecure", id="an upstream is always verified"),
        pytest.param(["--ignore-hosts", ".*"], "ignore_hosts", id="nothing passes by a pattern of mitmproxy's"),
        pytest.param(["--tcp-hosts", ".*"], "tcp_hosts", id="nothing is raw TCP by a pattern of mitmproxy's"),
        pytest.param(["--map-remote", "|a|b"], "map_remote", id="what was judged is where it goes"),
        pytest.param(["--mode", "socks5"], "socks5", id="a mode without a verdict of its own"),
        pytest.param(["--set", "confdir=x"], "confdir", id="an option that makes a CA"),
        pytest.param(["--set", "key_size=2048"], "key_size", id="another option that makes a CA"),
    ],
)
def test_an_option_that_undoes_a_promise_is_refused(options: list[str], says: str, tmp_path: Path) -> None:
    ca, _ = make_trust(tmp_path)
    (tmp_path / "policy.yaml").write_text("version: 1\n")
    variables = {"HOME": str(tmp_path), "EGRESS_POLICY": str(tmp_path / "policy.yaml"), "EGRESS_CA_DIR": str(ca)}
    port = free_port()
    process = subprocess.Popen(
        command("mitmdump", port, *options),
        env=os.environ | variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        cwd=tmp_path,
    )
    try:
        until(lambda: process.poll() is not None or None, "end of mitmdump")
    finally:
        process.kill()
        output = process.communicate()[0].decode()

    assert process.returncode in (1, 2), output
    assert says in output


LATER = """
from mitmproxy import ctx, exceptions

class Later:
    def running(self):
        for change in ({"connection_strategy": "eager"}, {"ssl_insecure": True}, {"egress_policy": "other.yaml"}):
            try:
                ctx.options.update(**change)
            except exceptions.OptionsError as e:
                print(f"refused {next(iter(change))}\\n", end="", flush=True)
        print(f"strategy is {ctx.options.connection_strategy}\\n", end="", flush=True)
        ctx.master.shutdown()

addons = [Later()]
"""


def test_a_promise_can_not_be_undone_later(tmp_path: Path) -> None:
    ca, _ = make_trust(tmp_path)
    (tmp_path / "policy.yaml").write_text("version: 1\n")
    (tmp_path / "later.py").write_text(LATER)
    variables = {"HOME": str(tmp_path), "EGRESS_POLICY": str(tmp_path / "policy.yaml"), "EGRESS_CA_DIR": str(ca)}

    result = subprocess.run(
        command("mitmdump", free_port(), "-s", str(tmp_path / "later.py"), "--set", "connection_strategy=eager"),
        env=os.environ | variables,
        capture_output=True,
        text=True,
        timeout=60,
        stdin=subprocess.DEVNULL,
    )

    for name in ("connection_strategy", "ssl_insecure", "egress_policy"):
        assert f"refused {name}" in result.stdout, result.stdout + result.stderr
    assert "strategy is lazy" in result.stdout


def test_without_a_policy_stock_mitmproxy_does_not_start(tmp_path: Path) -> None:
    result = subprocess.run(
        command("mitmdump", free_port()),
        env={k: v for k, v in os.environ.items() if not k.startswith("EGRESS_")} | {"HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        stdin=subprocess.DEVNULL,
    )

    assert result.returncode == 2
    assert "no policy" in result.stderr
