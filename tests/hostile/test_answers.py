"""Response smuggling: whatever an upstream answers, every client reads one answer to each of its requests."""

import http.client
import io
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final

import h11
import httptools
import pytest

from tests.hostile.answers import INJECTED, MUTATIONS, Mutation
from tests.hostile.recorder import Reply, ok, recording
from tests.hostile.test_requests import AT_ONCE, POLICY
from tests.live.sidecars import SECONDS, running
from tests.live.upstreams import Root
from tests.live.wire import dial

pytestmark = pytest.mark.live

type Answers = list[tuple[int, bytes]]  # status and body of each that is whole


def by_h11(data: bytes, methods: list[str]) -> Answers:
    read: Answers = []
    while methods and data:
        connection = h11.Connection(h11.CLIENT)
        connection.send(h11.Request(method=methods[0], target="/", headers=[("host", "x")]))
        connection.send(h11.EndOfMessage())
        connection.receive_data(data)
        connection.receive_data(b"") if b"content-length" not in data.lower() else None
        status, body = 0, b""
        while True:
            try:
                event = connection.next_event()
            except h11.RemoteProtocolError as e:
                if "peer closed" in str(e):
                    return read  # the rest isn't whole
                raise
            if isinstance(event, h11.Response):
                status = event.status_code
            elif isinstance(event, h11.Data):
                body += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                read.append((status, body))
                data, methods = connection.trailing_data[0], methods[1:]
                break
            elif not isinstance(event, h11.InformationalResponse):
                return read
    assert not data, f"h11 has {data!r} left"
    return read


def by_python(data: bytes, methods: list[str]) -> Answers:
    class Socket:
        file = io.BytesIO(data)

        def makefile(self, *_: object) -> Any:
            self.file.close = lambda: None  # type: ignore[method-assign]
            return self.file

    sock, read = Socket(), []
    for method in methods:
        if sock.file.tell() == len(data):
            break
        response = http.client.HTTPResponse(sock, method=method)  # type: ignore[arg-type]
        response.begin()
        try:
            read.append((response.status, response.read()))
        except http.client.IncompleteRead:
            return read
    assert sock.file.tell() == len(data), f"http.client has {data[sock.file.tell() :]!r} left"
    return read


def by_llhttp(data: bytes, methods: list[str]) -> Answers:
    """It can't be told of HEAD, or of the end of a connection: such answers are left to h11."""
    read: Answers = []

    class Callbacks:
        body = b""

        def on_message_begin(self) -> None:
            self.body = b""

        def on_body(self, body: bytes) -> None:
            self.body += body

        def on_message_complete(self) -> None:
            read.append((parser.get_status_code(), self.body))

    framed = b"content-length" in data.lower() or b"chunked" in data
    if "HEAD" in methods or not framed:
        return by_h11(data, methods)
    parser = httptools.HttpResponseParser(Callbacks())
    parser.feed_data(data)
    return read


_FIELD: Final = (
    rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+: (?:[^\x00-\x20\x7f](?:[^\x00-\x08\x0a-\x1f\x7f]*[^\x00-\x20\x7f])?)?\r\n"
)
_HEAD: Final = re.compile(rb"HTTP/1\.[01] ([2-9][0-9]{2}) [^\x00-\x08\x0a-\x1f\x7f]*\r\n((?:" + _FIELD + rb")*)\r\n")


def by_grammar(data: bytes, methods: list[str]) -> Answers:
    """Nothing optional, one way to write each thing, and at most one framing."""
    read: Answers = []
    for method in methods:
        if not data:
            break
        head = _HEAD.match(data)
        assert head, f"no canonical head: {data[:200]!r}"
        data, status = data[head.end() :], int(head[1])
        lines = [line.partition(b": ") for line in head[2].split(b"\r\n") if line]
        framing = [(n.lower(), v) for n, _, v in lines if n.lower() in (b"content-length", b"transfer-encoding")]
        assert len(framing) <= 1, framing
        if method == "HEAD" or status in (204, 304):
            read.append((status, b""))
        elif not framing:
            read.append((status, data))
            data = b""
        elif framing[0][0] == b"content-length":
            size = int(framing[0][1])
            if len(data) < size:
                return read
            read.append((status, data[:size]))
            data = data[size:]
        else:
            assert framing[0][1] == b"chunked"
            whole = re.match(rb"((?:[1-9a-f][0-9a-f]*\r\n.*?\r\n)*)0\r\n\r\n", data, re.DOTALL)
            if whole is None:
                return read
            read.append((status, b"".join(re.findall(rb"[0-9a-f]+\r\n(.*?)\r\n", whole[1], re.DOTALL))))
            data = data[whole.end() :]
    assert not data, f"left: {data!r}"
    return read


READERS: Final[dict[str, Callable[[bytes, list[str]], Answers]]] = {
    "the grammar": by_grammar,
    "h11": by_h11,
    "Python": by_python,
    "llhttp": by_llhttp,
}


@dataclass(frozen=True)
class Outcome:
    mutation: Mutation
    received: bytes


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Outcome]]:
    folder = tmp_path_factory.mktemp("answers")
    marks = {f"m{number}z": mutation for number, mutation in enumerate(MUTATIONS)}

    def answer(method: bytes, target: bytes) -> Reply:
        mark, _, rest = target.decode().strip("/").partition("/")
        return ok(method, target) if rest else Reply(marks[mark].raw, marks[mark].closes)

    def ask(port: int, mark: str, method: str) -> bytes:
        host, received = f"up.test:{port}", b""
        with dial(sidecar) as sock:
            sock.settimeout(SECONDS)
            first = f"{method} http://{host}/{mark} HTTP/1.1\r\nHost: {host}\r\n\r\n"
            last = f"GET http://{host}/{mark}/last HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
            sock.sendall((first + last).encode())
            try:
                while piece := sock.recv(65_536):
                    received += piece
            except ConnectionError:
                pass
        return received

    with recording(None, answer) as (port, _):
        arguments = ("--upstream-ca", str(Root(folder).pem), "--resolve", "up.test:127.0.0.1")
        with running(folder / "sidecar", POLICY, *arguments) as sidecar, ThreadPoolExecutor(AT_ONCE) as pool:
            received = list(pool.map(lambda m: ask(port, m[0], m[1].method), marks.items()))
    yield [Outcome(mutation, data) for mutation, data in zip(MUTATIONS, received, strict=True)]


def readings(outcome: Outcome) -> dict[str, Answers | str]:
    def read(name: str) -> Answers | str:
        try:
            return READERS[name](outcome.received, [outcome.mutation.method, "GET"])
        except (AssertionError, h11.ProtocolError, http.client.HTTPException, httptools.HttpParserError) as e:
            return f"{type(e).__name__}: {e}"

    return {name: read(name) for name in READERS}


def test_every_client_reads_the_same_answers(outcomes: list[Outcome]) -> None:
    wrong = []
    for outcome in outcomes:
        found = readings(outcome)
        answers = found["the grammar"]
        if isinstance(answers, str) or any(read != answers for read in found.values()):
            wrong.append(f"{outcome.mutation.id}: {found}: {outcome.received!r}")
    assert not wrong, "\n".join(wrong)


def test_what_is_behind_an_answer_answers_no_request(outcomes: list[Outcome]) -> None:
    # Behind an interim answer, which has no body, comes the answer, whatever the fields of the former say.
    behind = [o for o in outcomes if INJECTED in o.mutation.raw and " with a length" not in o.mutation.id]
    assert len(behind) > 50
    assert [o.mutation.id for o in behind if b"\r\nX-Injected: yes\r\n" in o.received] == []


def test_each_answer_has_its_fate(outcomes: list[Outcome]) -> None:
    wrong = []
    for outcome in outcomes:
        (status, *_), *rest = READERS["the grammar"](outcome.received, [outcome.mutation.method, "GET"]) or [(0, b"")]
        fate = "refused" if status in (0, 502) else "forwarded"
        strangers = [answer for answer in rest if answer != (200, b"ok") and answer[0] != 502]
        if outcome.mutation.fate not in (fate, "either") or strangers:
            wrong.append(f"{outcome.mutation.id}: {status}, {rest}: {outcome.received!r}")
    assert not wrong, "\n".join(wrong)
