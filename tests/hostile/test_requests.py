"""Request smuggling: of what is sent, nothing goes upstream, or what every reader takes for the judged requests."""

import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

from tests.hostile.mutations import MUTATIONS, Mutation
from tests.hostile.readers import PROGRAM_READERS, READERS, Reading
from tests.hostile.recorder import MARK, Recorded, recording
from tests.live.sidecars import SECONDS, Sidecar, running
from tests.live.upstreams import Root
from tests.live.wire import dial, secure

pytestmark = pytest.mark.live

POLICY = "version: 1\nrules: [{allow: [up.test], ports: ['1024-65535']}]\nnetwork: {allow_addresses: [127.0.0.0/8]}\n"
AT_ONCE = 8  # connections; more only wait for each other
LOOKS, LOOK_SECONDS = 30, 0.05  # at a request that isn't whole, for something of it to come upstream; not all does


@dataclass(frozen=True)
class Outcome:
    """What has become of a mutation."""

    mutation: Mutation
    judged: tuple[tuple[str, str], ...]  # method and path of each request that was allowed
    upstream: tuple[bytes, ...]  # what came there, by connection

    @property
    def fate(self) -> str:
        return "forwarded" if any(not path.endswith("/last") for _, path in self.judged) else "refused"


def send(
    port: int, host: str, mutation: Mutation, mark: str, recorded: Recorded, sidecar: object, *, tls: bool
) -> None:
    """Send it, and behind it a request that closes the connection, which says that all has been read."""
    target = f"/{mark}" if tls else f"http://{host}/{mark}"
    with secure(sidecar, host) if tls else dial(sidecar) as sock:  # type: ignore[arg-type]
        data = mutation.to(target.encode(), host.encode(), mark.encode())
        if mutation.fate == "cut":
            sock.sendall(data)
            sock.settimeout(LOOK_SECONDS)
            for _ in range(LOOKS):
                try:
                    if not sock.recv(65_536):
                        return
                except TimeoutError:
                    if recorded.has(mark):
                        return
                except ConnectionError:
                    return
            return
        sock.settimeout(SECONDS)
        last = f"GET {target}/last HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
        try:
            sock.sendall(data + last.encode())
            while sock.recv(65_536):
                pass
        except TimeoutError:
            raise AssertionError(f"{mutation.id}: neither answered nor closed") from None
        except ConnectionError:
            pass  # refused, and what we still had to say was too much


type Start = Callable[[Path, Path], AbstractContextManager[Sidecar]]  # in a folder, with the upstream's root


def ours(folder: Path, root: Path) -> AbstractContextManager[Sidecar]:
    # Without a pool, so that each of the upstream's connections is one client's.
    return running(
        folder, POLICY, "--upstream-ca", str(root), "--resolve", "up.test:127.0.0.1", "--limit", "upstream_pool=0"
    )


def outcomes(folder: Path, mutations: Sequence[Mutation], *, tls: bool, start: Start = ours) -> list[Outcome]:
    """Send each on a connection of its own; see what came upstream, and what was judged."""
    root = Root(folder)
    marks = {f"m{number}z": mutation for number, mutation in enumerate(mutations)}
    with recording(root.context("up.test") if tls else None) as (port, recorded):
        with start(folder / "sidecar", root.pem) as sidecar, ThreadPoolExecutor(AT_ONCE) as pool:
            host = f"up.test:{port}"
            list(pool.map(lambda m: send(port, host, m[1], m[0], recorded, sidecar, tls=tls), marks.items()))
        sidecar.stop()  # then all events are written
        upstream, judged = recorded.by_mark(), dict[str, list[tuple[str, str]]]()
        for event in sidecar.events("request_allowed"):
            if (found := MARK.search(event["path"].encode())) is not None:
                judged.setdefault(found[0].decode(), []).append((event["method"], event["path"]))
    return [Outcome(m, tuple(judged.get(k, ())), tuple(upstream.get(k, ()))) for k, m in marks.items()]


# A reader that answers 4xx and closes where all others read the same request is no danger; the last two are nginx's
# answers to TRACE, whatever comes with it.
REFUSES = {
    ("Go", "target with /% is one"),
    ("nginx", "target with /% is one"),
    ("nginx", "TRACE with a body"),
    ("nginx", "TRACE with chunks"),
}


def disagreements(name: str, outcomes: Sequence[Outcome], readings: Iterator[Reading]) -> list[str]:
    """Where a reader finds other requests in what came upstream than those that were judged."""
    found = []
    for outcome in outcomes:
        here = [next(readings) for _ in outcome.upstream]
        read = [(r.method, r.target.partition("?")[0]) for reading in here for r in reading.requests]
        whole = len(read) == len(outcome.judged) or outcome.mutation.fate == "cut"
        broken = [reading.rest for reading in here if reading.rest not in ("", "unfinished")]
        if (name, outcome.mutation.id) in REFUSES:
            continue
        if broken or not whole or read != list(outcome.judged[: len(read)]):
            found.append(f"{outcome.mutation.id}: reads {read} {broken}, judged {outcome.judged}: {outcome.upstream}")
    return found


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> list[Outcome]:
    return outcomes(tmp_path_factory.mktemp("plain"), MUTATIONS, tls=False)


@pytest.fixture(scope="module")
def intercepted(tmp_path_factory: pytest.TempPathFactory) -> list[Outcome]:
    """A handshake takes its time: one in six."""
    return outcomes(tmp_path_factory.mktemp("tls"), MUTATIONS[::6], tls=True)


@pytest.fixture(scope="module")
def all_intercepted(tmp_path_factory: pytest.TempPathFactory) -> list[Outcome]:
    return outcomes(tmp_path_factory.mktemp("tls"), MUTATIONS, tls=True)


def check(outcomes: Sequence[Outcome], readers: Sequence[str]) -> None:
    wrong = wrong_fates(outcomes)
    assert not wrong, "\n".join(wrong)
    connections = [data for outcome in outcomes for data in outcome.upstream]
    assert len(connections) > len(outcomes) / 5, "hardly anything came upstream"
    for name in readers:
        read = (READERS | PROGRAM_READERS)[name]
        found = disagreements(name, outcomes, iter(read(connections)))
        assert not found, f"{name}:\n" + "\n".join(found)


def wrong_fates(outcomes: Sequence[Outcome]) -> list[str]:
    return [
        f"{outcome.mutation.id}: {outcome.fate}, {outcome.judged}"
        for outcome in outcomes
        if (outcome.mutation.fate in ("refused", "forwarded") and outcome.fate != outcome.mutation.fate)
        or len(outcome.judged) > outcome.mutation.judged + 1
    ]


def test_a_plain_request_is_refused_or_read_in_one_way_by_everybody(plain: list[Outcome]) -> None:
    check(plain, list(READERS))


def test_an_intercepted_request_is_refused_or_read_in_one_way_by_everybody(intercepted: list[Outcome]) -> None:
    check(intercepted, list(READERS))


@pytest.mark.heavy
def test_every_mutation_inside_of_tls(all_intercepted: list[Outcome]) -> None:
    check(all_intercepted, [*READERS, *PROGRAM_READERS])


@pytest.mark.heavy
def test_go_and_nginx_read_the_judged_requests_too(plain: list[Outcome]) -> None:
    check(plain, list(PROGRAM_READERS))


def test_the_readers_do_disagree_about_what_is_never_forwarded() -> None:
    """Else their agreement would prove nothing."""

    @cache
    def read(name: str, data: bytes) -> tuple[int, bool]:
        (reading,) = READERS[name]([data])
        return len(reading.requests), reading.rest in ("", "unfinished")

    disputed = 0
    for mutation in MUTATIONS:
        if mutation.fate == "refused":
            data = mutation.to(b"/m0z", b"up.test", b"m0z")
            disputed += len({read(name, data) for name in READERS if name != "Node"}) > 1

    assert disputed > 50
    assert shutil.which("node"), "one of the readers is Node"
