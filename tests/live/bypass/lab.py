"""Both pods: in one everything gets through, in the other are the fence and the sidecar."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

from tests.live.bypass import places
from tests.live.bypass.side import WORKLOADS, Left, Side, Who, new_token
from tests.live.bypass.vector import Row, Vector
from tests.live.pod import SIDECAR_UID, Pod, Process, need_root_and, pods
from tests.live.sidecars import Line, make_trust, until

_RESOLVE: Final = tuple(
    argument
    for name, address in (
        *((name, places.ALLOWED_V4) for name in (places.ALLOWED, places.ALSO_ALLOWED, places.PASSTHROUGH)),
        *places.GUARDED.items(),
    )
    for argument in ("--resolve", f"{name}:{f'[{address}]' if ':' in address else address}")
)


class Events:
    """The sidecar's events, read as they come."""

    def __init__(self, file: Path) -> None:
        self._file, self._at = file, 0
        self.lines: list[Line] = []

    def skip(self) -> None:
        self._read()
        self.lines.clear()

    def find(self, event: str) -> bool:
        """Whether there is one of this kind and reason since `skip`."""
        self._read()
        kind, _, reason = event.partition(" ")
        return any(line["event"] == kind and (not reason or line["reason"] == reason) for line in self.lines)

    def said(self) -> str:
        return ", ".join(f"{line['event']} {line.get('reason') or ''}".strip() for line in self.lines)

    def _read(self) -> None:
        if not self._file.exists():
            return
        with self._file.open("rb") as file:
            file.seek(self._at)
            for line in file:
                if line.endswith(b"\n"):
                    self._at += len(line)
                    self.lines.append(json.loads(line))


class Lab:
    """Makes each attempt on both sides, and tells what came of it."""

    def __init__(self, folder: Path, unfenced: Pod, fenced: Pod) -> None:
        self._folder = folder
        self.forbidden = set[str]()  # tokens that may not arrive within the fence, not later either
        self.unfenced, self.fenced = Side(unfenced, folder / "unfenced"), Side(fenced, folder / "fenced")
        in_its_place = _stand_ins(unfenced, "proxy")
        self.unfenced.places["{sidecar}"] = in_its_place.popen.pid
        self._ca, _ = make_trust(folder)
        self.fenced.places["{ca}"] = str(self._ca / "ca.pem")
        for path in (self._ca, *self._ca.iterdir()):
            os.chown(path, SIDECAR_UID, SIDECAR_UID)
        (folder / "policy.yaml").write_text(places.POLICY)
        code = "import sys; from sidecar.cli import main; sys.argv[0] = 'sidecar'; main()"
        fenced.run([sys.executable, "-c", code, "netfilter"], check=True, timeout=60)
        self.events = Events(folder / "events.jsonl")
        self.start_sidecar()
        _stand_ins(fenced)

    def start_sidecar(self) -> None:
        """As its own user, with the fence in force; returns when it listens."""
        self.events.skip()
        command = [sys.executable, "-m", "sidecar", "run", "--transparent", "--ca-dir", str(self._ca)]
        command += ["--policy", str(self._folder / "policy.yaml"), "--events", str(self._folder / "events.jsonl")]
        command += ["--upstream-ca", str(self.fenced.upstream_ca), "--drain-seconds", "1", *_RESOLVE]
        with (self._folder / "stderr.txt").open("ab") as log:
            self.sidecar = subprocess.Popen(
                self.fenced.pod.command(command, uid=SIDECAR_UID), stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        self.fenced.places["{sidecar}"] = self.sidecar.pid
        until(lambda: self.sidecar.poll() is not None or self.events.find("policy_loaded"), "start")
        assert self.sidecar.poll() is None, self.stderr()

    def lines(self) -> list[Line]:
        """All events of the session."""
        return [json.loads(line) for line in (self._folder / "events.jsonl").read_text().splitlines()]

    def stderr(self) -> str:
        return (self._folder / "stderr.txt").read_text()

    def stop(self) -> None:
        if self.sidecar.poll() is None:
            self.sidecar.terminate()
            try:
                self.sidecar.wait(10)
            except subprocess.TimeoutExpired:
                self.sidecar.kill()
                self.sidecar.wait()

    def observe(self, vector: Vector) -> Row:
        """Make the attempt without the fence, then within it as root and as another user."""
        through, without = self._without(vector)
        said, problems = [], [] if through else [f"shows nothing: without the fence it doesn't get through ({without})"]
        for who in WORKLOADS:
            answer, trouble = self._within(vector, who)
            said.append(answer)
            problems += [f"{who}: {what}" for what in trouble]
        seen = said[0] if len(set(said)) == 1 else "; ".join(f"{w}: {s}" for w, s in zip(WORKLOADS, said, strict=True))
        return Row(
            id=vector.id,
            without=without,
            expected=vector.condition,
            seen=seen,
            event=vector.event or "",
            problems=tuple(problems),
            precondition=self._precondition(vector),
        )

    def _without(self, vector: Vector) -> tuple[bool, str]:
        side, token = self.unfenced, new_token()
        said = side.ask("privileged" if vector.precondition else "user", vector.probe, *vector.arguments, token=token)
        if vector.through is not None:
            side.left()
            return vector.through == said, said
        return (True, "arrives") if token in side.left().tokens else (False, said)

    def _within(self, vector: Vector, who: Who) -> tuple[str, list[str]]:
        token = new_token()
        if not vector.arrives:
            self.forbidden.add(token)
        self.events.skip()
        said = self.fenced.ask(who, vector.probe, *vector.arguments, token=token)
        trouble = [] if said in vector.expected else [f"the answer is {said!r}"]
        if vector.event is not None:
            try:
                until(lambda: self.events.find(vector.event or ""), "event")
            except AssertionError:
                trouble.append(f"no {vector.event}, but: {self.events.said()}")
        left = self.fenced.left(resolver_may_be_asked=vector.asks_resolver)
        if token in left.tokens and not vector.arrives:
            trouble.append("its token has arrived")
        if vector.arrives and token not in left.tokens:
            trouble.append("its token should have arrived")
        return said, trouble + [f"a packet went astray: {packet}" for packet in left.astray]

    def _precondition(self, vector: Vector) -> str:
        if vector.precondition is None or not vector.shown:
            return vector.precondition or ""
        token = new_token()
        self.fenced.ask("privileged", vector.probe, *vector.arguments, token=token)
        escaped = _escaped(self.fenced.left(), token)
        return f"{vector.precondition} ({'with it, it escapes' if escaped else 'held even with it'})"


def _escaped(left: Left, token: str) -> bool:
    return token in left.tokens or bool(left.astray)


def _stand_ins(pod: Pod, *arguments: str) -> Process:
    process = pod.popen([sys.executable, "-m", "tests.live.bypass.stand_ins", *arguments], uid=SIDECAR_UID)
    assert process.line() == "ready"
    return process


@contextmanager
def laboratory() -> Iterator[Lab]:
    """Both pods; skips or fails first where they can't be made."""
    need_root_and("nft", "sysctl", "ip")
    with ExitStack() as stack:
        # Not pytest's folder, which other users can't enter: the sidecar reads and writes there, as its own.
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        folder.chmod(0o777)
        unfenced, fenced = stack.enter_context(pods()), stack.enter_context(pods())
        lab = Lab(folder, unfenced, fenced)
        stack.callback(lab.stop)
        yield lab
