"""
``python -m bench.soak``: half an hour of mixed traffic through one sidecar, while its policy and its CA change.

Allowed, denied, streamed and upgraded requests, HTTP/2, and an upstream that isn't there. It ends with exit code 1 if a
client saw what the mix doesn't explain, if the events don't say what the clients did, or if memory or file descriptors
have grown.
"""

import json
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from datetime import UTC, datetime
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Annotated

import typer

from bench.client import times
from bench.loads import prepare
from bench.measure import first_answer
from bench.names import DOMAIN
from bench.plan import Plan
from bench.processes import BenchError, file_descriptors, rss_megabytes, settled_cpu_microseconds
from bench.proxies import Contestant, Proxy, policy, running
from bench.rows import Row
from bench.soak_judge import Look, Tally, growth, problems
from bench.upstream import Upstream, free_port, serving
from bench.wire import Tunnel, WrongAnswer, client_context
from tests.live.mounted import Secret, authority_now, ca_files

BROKEN = f"broken.{DOMAIN}"  # no server listens at its port
RELOAD_SECONDS, ROTATE_SECONDS, LOOK_SECONDS, SAY_SECONDS = 5.0, 17.0, 2.0, 15.0
MIX = {  # operations of one connection
    Row.KEEP_ALIVE: 20, Row.NEW_CONNECTION: 5, Row.DENIED: 5, Row.DOWNLOAD: 1, Row.UPLOAD: 1, Row.HTTP2: 60,
    Row.WEBSOCKET: 20, Row.EVENT_DELAY: 20,
}  # fmt: skip
STREAMED_MEGABYTES = 3.0
DRAIN_SECONDS = 90.0


class Soak:
    """The clients, a thread for each kind, and what disturbs the sidecar meanwhile."""

    def __init__(self, proxy: Proxy, upstream: Upstream, policy_file: Path, secret: Secret, broken_port: int) -> None:
        self.tally, self.errors = Tally(), Counter[str]()
        self._proxy, self._upstream = proxy, upstream
        self._policy_file, self._secret, self._broken_port = policy_file, secret, broken_port
        self._end, self._lock = threading.Event(), threading.Lock()
        self._plan = Plan(down_megabytes=STREAMED_MEGABYTES, up_megabytes=STREAMED_MEGABYTES, seconds=0.1)
        self.policies: list[str] = []

    def run(self, seconds: float, rotations: Iterator[dict[str, bytes]], say: Callable[[str], None]) -> list[Look]:
        jobs: list[Callable[[], None]] = [partial(self._requests, row) for row in MIX]
        jobs += [self._failing, self._reload, lambda: self._rotate(rotations)]
        threads = [threading.Thread(target=self._repeat, args=(job,), daemon=True) for job in jobs]
        looks: list[Look] = []
        start = said = time.monotonic()
        for thread in threads:
            thread.start()
        while (now := time.monotonic()) < start + seconds and not self.errors:
            looks.append(self._look(now - start))
            if now - said >= SAY_SECONDS:
                said = now
                say(f"{now - start:6.0f} s  {self.tally}  {looks[-1].megabytes:.1f} MB, {looks[-1].descriptors} fds")
            time.sleep(LOOK_SECONDS)
        self._end.set()
        for thread in threads:
            thread.join(60)
            if thread.is_alive():
                self.errors["a client hangs"] += 1
        return looks

    def _look(self, at: float) -> Look:
        assert self._proxy.pid is not None
        return Look(at, rss_megabytes(self._proxy.pid), file_descriptors(self._proxy.pid))

    def _repeat(self, job: Callable[[], None]) -> None:
        while not self._end.is_set():
            try:
                job()
            except (WrongAnswer, OSError, ValueError) as e:
                with self._lock:
                    self.errors[f"{type(e).__name__}: {e}"] += 1
                return

    def _count(self, **counts: int) -> None:
        with self._lock:
            self.tally = replace(self.tally, **{k: getattr(self.tally, k) + v for k, v in counts.items()})

    def _requests(self, row: Row) -> None:
        load = replace(self._plan.load(self._upstream, self._proxy, row), connections=1)
        done = sum(1 for _ in prepare(load)(times(MIX[row])))  # what it has connected is closed with it
        if row is Row.DENIED:
            self._count(denied=done)
        elif row in {Row.WEBSOCKET, Row.EVENT_DELAY}:
            self._count(allowed=1)
        else:
            self._count(allowed=done)

    def _failing(self) -> None:
        load = self._plan.load(self._upstream, self._proxy, Row.KEEP_ALIVE).at(self._broken_port)
        tunnel = Tunnel(load, client_context(load.ca_file), BROKEN)
        tunnel.socket.sendall(tunnel.request("/", more="Connection: close\r\n"))
        tunnel.head(b"502")
        tunnel.close()
        self._count(failed=1)
        self._end.wait(0.05)

    def _reload(self) -> None:
        self._end.wait(RELOAD_SECONDS)
        self._count(reloads=1)
        text = self.policies[self.tally.reloads % len(self.policies)]
        fresh = self._policy_file.with_suffix(".new")
        fresh.write_text(text)
        fresh.replace(self._policy_file)

    def _rotate(self, rotations: Iterator[dict[str, bytes]]) -> None:
        if not self._end.wait(ROTATE_SECONDS):
            self._secret.swap(next(rotations))
            self._count(rotations=1)


def soak(
    folder: Path, upstream: Upstream, minutes: float, say: Callable[[str], None]
) -> tuple[dict[str, object], list[str]]:
    """Run it; what came out, for JSON, and what isn't as it should be."""
    root = authority_now("soak root", path_length=1)
    versions = [ca_files(authority_now(f"issuer {n}", root, path_length=0), root) for n in range(2)]
    secret = Secret(folder / "secret", versions[0])
    (folder / "root.pem").write_bytes(root.pem)
    broken = free_port()
    ports = (upstream.port, upstream.live_port, broken)
    policy_file = folder / "policy.yaml"
    policies = [policy(*ports), policy(*ports).replace("default: deny", "default: deny # again")]
    policy_file.write_text(policies[0])
    options = ["--ca-dir", str(secret.folder), "--policy", str(policy_file), "--resolve", f"{BROKEN}:127.0.0.1"]
    with running(Contestant.SIDECAR, folder / "sidecar", upstream, None, options=options) as proxy:
        proxy = replace(proxy, ca_file=folder / "root.pem")
        assert proxy.pid is not None and proxy.events is not None
        work = Soak(proxy, upstream, policy_file, secret, broken)
        first_answer(proxy, upstream)  # all that it opens once is open then
        work.tally = Tally(allowed=1)
        settled_cpu_microseconds(proxy.pid)
        at_start = file_descriptors(proxy.pid)
        work.policies = policies
        looks = work.run(minutes * 60, cycle([versions[1], versions[0]]), say)
        left = settled_descriptors(proxy.pid, at_start)
        events = counted(proxy.events, work.tally)
    memory, descriptors = growth(looks)
    made = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "minutes": minutes,
        **asdict(work.tally),
        "megabytes": asdict(memory),
        "file_descriptors": asdict(descriptors),
        "events": dict(sorted(events.items())),
    }
    return made, problems(work.tally, work.errors, events, looks, left)


def settled_descriptors(pid: int, at_start: int) -> int:
    """How many more are open than at the start; waits for what is closed late, as a pool's connections are."""
    deadline = time.monotonic() + DRAIN_SECONDS
    while (more := file_descriptors(pid) - at_start) > 0 and time.monotonic() < deadline:
        time.sleep(0.5)
    return more


def counted(file: Path, tally: Tally) -> Counter[str]:
    """The events by name, once all requests of *tally* are among them, or won't be."""
    deadline = time.monotonic() + DRAIN_SECONDS
    while True:
        events = Counter(json.loads(line)["event"] for line in file.read_bytes().splitlines())
        ended = sum(events[f"request_{end}"] for end in ("closed", "denied", "failed"))
        if ended >= tally.allowed + tally.denied + tally.failed or time.monotonic() > deadline:
            return events
        time.sleep(0.5)


def main(
    minutes: Annotated[float, typer.Option(min=0.1, help="For so long.")] = 30.0,
    output: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the result here (JSON).")] = None,
) -> None:
    """Mixed traffic for half an hour: nothing unexplained, nothing forgotten, nothing that grows."""
    with tempfile.TemporaryDirectory(prefix="bench-") as name, serving(Path(name, "upstream"), None) as upstream:
        made, found = soak(Path(name), upstream, minutes, lambda line: print(line, flush=True))
    print(json.dumps(made, indent=2))
    if output:
        output.write_text(json.dumps(made, indent=2) + "\n")
    for problem in found:
        print(f"soak: {problem}")
    print(f"soak: {'missed' if found else 'met'}, {minutes:g} minutes")
    raise typer.Exit(1 if found else 0)


if __name__ == "__main__":
    try:
        typer.run(main)
    except BenchError as e:
        sys.exit(f"bench: {e}")
