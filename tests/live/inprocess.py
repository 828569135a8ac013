"""A sidecar in this process, in a thread of its own: for tests that must reach inside."""

import asyncio
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import orjson

from sidecar.events.model import Level
from sidecar.limits import Limits
from sidecar.pki.session_ca import SessionCa, issue_session_ca
from sidecar.policy import parse_policy
from sidecar.runtime.engine import Service, serve
from sidecar.runtime.listeners import address_of, bind, explicit
from sidecar.runtime.session import Clock, Session, Settings, wall_clock
from sidecar.upstreams.files import load_upstreams
from sidecar.upstreams.roots import RootFiles
from tests.live.sidecars import SECONDS, until


class Lines:
    """A sink that keeps the events."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []

    def offer(self, line: bytes) -> bool:
        self.events.append(orjson.loads(line))
        return True

    def close(self) -> None:
        pass


class InProcess:
    """What a test sees of it."""

    def __init__(
        self, session: Session, sink: Lines, listen: str, trust: Path, loop: asyncio.AbstractEventLoop
    ) -> None:
        self.session, self.listen, self.trust, self._sink, self._loop = session, listen, trust, sink, loop

    @property
    def bundle(self) -> Path:
        return self.trust / "bundle.pem"

    def call(self, function: Callable[[], object]) -> None:
        """Have the sidecar's thread call *function*; returns once it has."""
        done = threading.Event()
        self._loop.call_soon_threadsafe(function)
        self._loop.call_soon_threadsafe(done.set)
        assert done.wait(SECONDS)

    @property
    def port(self) -> int:
        return int(self.listen.rpartition(":")[2])

    def events(self, name: str | None = None, **fields: object) -> list[dict[str, Any]]:
        return [
            event
            for event in list(self._sink.events)
            if (name is None or event["event"] == name) and all(event.get(k) == v for k, v in fields.items())
        ]

    def event(self, name: str, **fields: object) -> dict[str, Any]:
        return until(lambda: next(iter(self.events(name, **fields)), None), f"{name} {fields} in {self._sink.events}")


@contextmanager
def in_process(
    folder: Path,
    policy: str,
    *,
    upstream_ca: Path | None,
    names: tuple[str, ...],
    level: Level = "info",
    ca: SessionCa | None = None,
    now: Clock = wall_clock,
    services: Sequence[Service] = (),
    limits: Limits | None = None,
) -> Iterator[InProcess]:
    """Serve *policy* on a free loopback port; *names* lead to 127.0.0.1."""
    ca, sink = ca or issue_session_ca(common_name="in-process", now=datetime.now(UTC)), Lines()
    (folder / "bundle.pem").write_bytes(ca.root_pem())
    parsed = parse_policy(policy, str(folder / "policy.yaml"))
    session = Session(
        Settings(
            policy=parsed,
            upstreams=load_upstreams(parsed, RootFiles(alone=upstream_ca)),
            ca=ca,
            sink=sink,
            session="in-process",
            level=level,
            pinned={(name, None): IPv4Address("127.0.0.1") for name in names},
            now=now,
            limits=limits or Limits(),
        )
    )
    listener = bind(IPv4Address("127.0.0.1"), 0)
    loop = asyncio.new_event_loop()
    stop = asyncio.Event()
    failure: list[BaseException] = []

    async def until_stopped() -> None:
        await stop.wait()

    def run() -> None:
        try:
            loop.run_until_complete(
                serve(
                    session,
                    [explicit(listener)],
                    listen=[address_of(listener)],
                    until=until_stopped,
                    drain_seconds=0.2,
                    services=services,
                )
            )
        except BaseException as e:
            failure.append(e)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    running = InProcess(session, sink, address_of(listener), folder, loop)
    running.event("policy_loaded")
    try:
        yield running
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(20)
        session.close()
        listener.close()
        loop.close()
    assert not failure, failure
