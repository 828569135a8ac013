"""HTTP/2 requests: refused, or one request upstream, by HTTP/2 or, where the upstream has changed its mind, HTTP/1."""

import asyncio
import ssl
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import h2.config
import h2.connection
import h2.events
import h2.exceptions
import pytest

from tests.hostile.http2 import RawHttp2
from tests.hostile.readers import READERS
from tests.hostile.recorder import MARK, Downgrade, recording
from tests.hostile.streams import MUTATIONS, Mutation
from tests.hostile.test_requests import POLICY
from tests.live.sidecars import SECONDS, Sidecar, running
from tests.live.threads import serving_protocol
from tests.live.upstreams import Root
from tests.live.wire import secure

pytestmark = pytest.mark.live

TRIES: Final = 5

type Sent = dict[str, tuple[Mutation, str]]  # by mark: what became of it on the client's side


def send_all(
    sidecar: Sidecar, port: int, mutations: Sequence[Mutation], begin: Callable[[], None] = lambda: None
) -> Sent:
    """Each on a connection of its own; again, by another mark, where an upstream that closes was a moment too late."""
    sent: Sent = {}
    host = f"up.test:{port}"
    for number, mutation in enumerate(mutations):
        for attempt in range(TRIES):
            mark = f"m{number * TRIES + attempt}z"
            begin()
            with secure(sidecar, host, alpn=("h2", "http/1.1")) as sock:
                sock.settimeout(SECONDS)
                client = RawHttp2(sock)
                client.send(*mutation.frames(client, host, mark))
                outcome = client.outcome()
            if outcome != "502":
                sent[mark] = (mutation, outcome)
                break
        else:
            raise AssertionError(f"{mutation.id}: 502 each time")
    return sent


def judged(sidecar: Sidecar) -> dict[str, list[tuple[str, str]]]:
    sidecar.stop()  # then all events are written
    found: dict[str, list[tuple[str, str]]] = {}
    for event in sidecar.events("request_allowed"):
        if (mark := MARK.search(event["path"].encode())) is not None:
            found.setdefault(mark[0].decode(), []).append((event["method"], event["path"]))
    return found


def wrong_fates(sent: Sent, allowed: dict[str, list[tuple[str, str]]]) -> list[str]:
    return [
        f"{mutation.id}: {outcome}"
        for mark, (mutation, outcome) in sent.items()
        if ("forwarded" if mark in allowed else "refused") != mutation.fate != "either"
        or (mark in allowed) is not (outcome == "200")
        or len(allowed.get(mark, ())) > 1
    ]


def test_a_stream_to_an_http1_upstream_is_refused_or_read_in_one_way_by_everybody(tmp_path: Path) -> None:
    root = Root(tmp_path)
    tls = Downgrade(root.context("up.test"), root.context("up.test"))
    arguments = ("--upstream-ca", str(root.pem), "--resolve", "up.test:127.0.0.1", "--limit", "upstream_pool=0")
    with recording(tls.context) as (port, recorded), running(tmp_path / "sidecar", POLICY, *arguments) as sidecar:
        sent = send_all(sidecar, port, MUTATIONS, tls.begin)
        upstream, allowed = recorded.by_mark(), judged(sidecar)

    assert wrong_fates(sent, allowed) == []
    connections = [(mark, b"".join(upstream.get(mark, ()))) for mark in sent]
    for name, read in READERS.items():
        for (mark, data), reading in zip(connections, read([data for _, data in connections]), strict=True):
            found = [(r.method, r.target.partition("?")[0]) for r in reading.requests]
            body = b"".join(r.body for r in reading.requests)
            mutation, _ = sent[mark]
            assert found == allowed.get(mark, []), f"{name}, {mutation.id}: {data!r}"
            assert not reading.rest, f"{name}, {mutation.id}: {reading.rest}: {data!r}"
            if found:
                assert body == mutation.body(mark), f"{name}, {mutation.id}: {data!r}"


class StrictHttp2(asyncio.Protocol):
    """The h2 library's server, which refuses whatever it takes for malformed."""

    def __init__(self, seen: list[tuple[str, str]], objections: list[str]) -> None:
        self._seen, self._objections = seen, objections
        self._h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False, header_encoding="latin-1"))

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._h2.initiate_connection()
        transport.write(self._h2.data_to_send())

    def data_received(self, data: bytes) -> None:
        try:
            for event in self._h2.receive_data(data):
                match event:
                    case h2.events.RequestReceived():
                        fields = {str(name): str(value) for name, value in event.headers}
                        self._seen.append((fields[":method"], fields[":path"].partition("?")[0]))
                        assert "host" not in fields and fields[":authority"], fields
                    case h2.events.StreamEnded(stream_id=stream) if stream:
                        self._h2.send_headers(stream, [(":status", "200")], end_stream=True)
                    case h2.events.DataReceived(stream_id=stream, flow_controlled_length=size) if stream and size:
                        self._h2.acknowledge_received_data(size, stream)
        except (h2.exceptions.ProtocolError, AssertionError) as e:
            self._objections.append(f"{e}, after {self._seen[-1:]}")
            self._h2.close_connection()
        self._transport.write(self._h2.data_to_send())
        if self._h2.state_machine.state is h2.connection.ConnectionState.CLOSED:
            self._transport.close()


@contextmanager
def strict(context: ssl.SSLContext) -> Iterator[tuple[int, list[tuple[str, str]], list[str]]]:
    context.set_alpn_protocols(["h2"])
    seen: list[tuple[str, str]] = []
    objections: list[str] = []
    with serving_protocol(lambda: StrictHttp2(seen, objections), context) as port:
        yield port, seen, objections


@pytest.mark.parametrize(
    "mutations",
    [pytest.param(MUTATIONS[::4], id="one in four"), pytest.param(MUTATIONS, id="all", marks=pytest.mark.heavy)],
)
def test_a_stream_to_an_http2_upstream_is_refused_or_well_formed(mutations: list[Mutation], tmp_path: Path) -> None:
    root = Root(tmp_path)
    arguments = ("--upstream-ca", str(root.pem), "--resolve", "up.test:127.0.0.1", "--limit", "upstream_pool=0")
    with (
        strict(root.context("up.test")) as (port, seen, objections),
        running(tmp_path / "sidecar", POLICY, *arguments) as sidecar,
    ):
        sent = send_all(sidecar, port, mutations)
        allowed = judged(sidecar)

    assert objections == []
    assert wrong_fates(sent, allowed) == []
    assert seen == [request for mark in sent for request in allowed.get(mark, ())]
