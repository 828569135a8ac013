"""Runs clients in a fenced-in pod, each with four kinds of trust, and says what became of them."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tests.clients import served
from tests.clients.client import Client, Row, Trust
from tests.clients.tools import Tools
from tests.live.intercepted import ALLOW_ADDRESSES, Intercepted, Zone, intercepted
from tests.live.pod import INTERNET_V4, WORKLOAD_UID
from tests.live.sidecars import Line, until

SYSTEM: Final = "/etc/ssl/certs"  # Debian's; Java's keystore lies below it
SECONDS: Final = 100.0  # for one run; far more than any takes
_RELAY, _PROXY = 3128, 14101
_POLICY: Final = f'version: 1\nrules: [{{allow: ["*.clients.example"]}}]\n{ALLOW_ADDRESSES}'
# Seen by this one process and its children.
_MOUNT: Final = f'mount --bind "$0" {SYSTEM} && exec "$@"'


def host_of(client: Client, trust: Trust, way: str = "redirected") -> str:
    """A host for each run, so that the sidecar's events tell them apart."""
    slug = re.sub(r"[^a-z0-9]+", "-", client.name.lower()).strip("-")
    return f"{slug}-{trust}-{way}.clients.example"


class Laboratory:
    """A pod with the sidecar in it and an upstream that all clients ask; several may at a time."""

    def __init__(self, scene: Intercepted, tools: Tools, noted: Path) -> None:
        self._scene, self._tools, self._noted = scene, tools, noted

    def observe(self, client: Client) -> Row:
        """Run *client* with each kind of trust; with both, by the proxy that the variables name as well."""
        problems: list[str] = []
        if self._run(client, Trust.NOTHING, problems):
            problems.append("fetches the page without being told whom to trust")
        trusts: dict[Trust, bool] = {
            trust: self._run(client, trust, problems) for trust in Trust if trust is not Trust.NOTHING
        }
        proxied = self._run(client, Trust.BOTH, problems, way="proxied")
        if proxied != (trusts[Trust.BOTH] and not client.proxy_exception):
            problems.append(f"{'works' if proxied else 'fails'} with HTTPS_PROXY")
        if trusts[Trust.BOTH] != (not client.exception):
            problems.append("has an exception and works" if client.exception else "doesn't trust with both")
        return Row(
            client=client,
            version=self._version(client),
            trusts=trusts,
            proxy=self._came_by_proxy(client) if proxied else None,
            problems=tuple(problems),
        )

    def _came_by_proxy(self, client: Client) -> bool:
        host = re.escape(host_of(client, Trust.BOTH, "proxied"))
        return re.search(f"[ /]{host}[:/ ]".encode(), self._noted.read_bytes()) is not None

    def _run(self, client: Client, trust: Trust, problems: list[str], *, way: str = "redirected") -> bool:
        """
        Whether it got the upstream's answer. A run that shows neither that nor that it refused the CA is made once
        more, then a problem: a name may fail to resolve while many clients ask.
        """
        host = host_of(client, trust, way)
        for attempt in (1, 2):
            done = self._fetch(client, trust, host, attempt, proxied=way == "proxied")
            answered = client.shows in done.stdout + done.stderr
            if (way == "proxied" and client.proxy_exception) or self._recorded(host, answered):
                return answered
        seen = [line for line in self._scene.sidecar.events() if line.get("host") == host]
        problems.append(f"{trust}, {way}: {_summary(done)}; the sidecar saw {seen}")
        return answered

    def _recorded(self, host: str, answered: bool) -> bool:
        """Wait for the sidecar's record of it."""

        def look() -> bool:
            return any(
                line["event"] == "request_allowed" if answered else _gave_up(line)
                for line in self._scene.sidecar.events()
                if line.get("host") == host
            )

        try:
            return until(look, "record")
        except AssertionError:
            return False

    def _fetch(
        self, client: Client, trust: Trust, host: str, attempt: int, *, proxied: bool
    ) -> subprocess.CompletedProcess[str]:
        home = self._scene.home / f"{host}-{attempt}"
        home.mkdir()
        values = self._tools.places | {"url": f"https://{host}/", "host": host, "home": str(home)}
        for name, text in client.files.items():
            file = home / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(_filled(text, values))
        if self._tools.modules.exists():
            (home / "node_modules").symlink_to(self._tools.modules)
        for path in (home, *home.rglob("*")):
            os.chown(path, WORKLOAD_UID, WORKLOAD_UID, follow_symlinks=False)

        variables = {"HOME": str(home), "TMPDIR": str(home)}
        if proxied:
            proxy = f"http://127.0.0.1:{_RELAY}"
            variables |= dict.fromkeys(("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy"), proxy)
        variables |= {name: _filled(text, values) for name, text in client.variables.items()}
        told = trust in (Trust.VARIABLES, Trust.BOTH)
        command = self._command(
            [_filled(word, values) for word in client.command], mounted=trust in (Trust.SYSTEM, Trust.BOTH)
        )
        environment = self._scene.environment(trusting=told, **variables)
        try:
            return subprocess.run(
                command,
                env=environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=SECONDS,
                cwd=home,
                check=False,
            )
        except subprocess.TimeoutExpired as e:
            return subprocess.CompletedProcess(command, -1, str(e.stdout), f"no end within {SECONDS:.0f} s")

    def _command(self, words: Sequence[str], *, mounted: bool) -> list[str]:
        inside = self._scene.command(*words)
        if not mounted:
            return inside
        enter = self._scene.pod.command(())
        folder = str(self._scene.trust / "layouts" / "debian" / SYSTEM.lstrip("/"))
        return [*enter, "unshare", "--mount", "sh", "-c", _MOUNT, folder, *inside[len(enter) :]]

    def _version(self, client: Client) -> str:
        done = subprocess.run(
            [_filled(word, self._tools.places) for word in client.version],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            cwd=self._tools.folder,
            check=False,
        )
        found = re.search(r"\d+\.[\w.]*\w", done.stdout + done.stderr)
        return found[0] if found else "?"


@contextmanager
def laboratory(clients: Sequence[Client], tools: Tools) -> Iterator[Laboratory]:
    """
    A laboratory for *clients*.

    Raises:
        AssertionError: At the end, where the sidecar's events aren't as they must be.
    """
    hosts = [host_of(client, trust) for client in clients for trust in Trust]
    hosts += [host_of(client, Trust.BOTH, "proxied") for client in clients]
    assert len(set(hosts)) == len(hosts), "two clients share a name"
    zone = Zone(names=dict.fromkeys(hosts, INTERNET_V4[:1]))
    with intercepted(policy=_POLICY, zone=zone) as scene:
        for host in hosts:
            served.write(scene.www, host)
        noted = scene.folder / "proxied.txt"
        noted.touch()
        relay = scene.pod.popen([sys.executable, "-m", "tests.clients.relay", str(_RELAY), str(_PROXY), str(noted)])
        assert relay.line() == "ready"
        yield Laboratory(scene, tools, noted)


def _gave_up(line: Line) -> bool:
    """A client that doesn't trust ends the handshake, or, if it looks late, a request that it has sent."""
    failed = line["event"] == "tls_handshake_failed" and line["side"] == "client"
    return failed or (line["event"], line.get("reason")) == ("request_failed", "client_disconnected")


def _filled(text: str, values: Mapping[str, str]) -> str:
    for name, value in values.items():
        text = text.replace(f"{{{name}}}", value)
    return text


def _summary(done: subprocess.CompletedProcess[str]) -> str:
    return f"exit {done.returncode}, {done.stdout[-600:]!r}, {done.stderr[-1500:]!r}"
