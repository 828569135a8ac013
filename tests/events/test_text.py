"""JSON of what a client has sent: valid, bounded, one line."""

import json

import pytest

from sidecar.events.log import EventLog
from sidecar.events.model import PolicyReloadFailed, RequestClosed
from sidecar.events.text import MAX_TEXT, dumps, printable


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("/plain", "/plain", id="ASCII stays as it is"),
        pytest.param("/ä€😀", "/ä€😀", id="text beyond ASCII stays as it is"),
        pytest.param("/a\udcff\udc80", "/a%FF%80", id="bytes that are no UTF-8 are written as in a URL"),
        pytest.param("/a\ud800", "/a\ufffd", id="half a surrogate pair is replaced"),
    ],
)
def test_what_cannot_be_decoded_is_escaped(text: str, expected: str) -> None:
    assert printable(text) == expected
    assert json.loads(dumps({"path": text})) == {"path": expected}


def test_long_texts_are_cut_off_wherever_they_stand() -> None:
    long = "x" * 100_000

    document = json.loads(dumps({"a": long, "b": [long, "short"], "c": {"d": long}}))

    assert [len(document["a"]), len(document["b"][0]), len(document["c"]["d"])] == [MAX_TEXT] * 3
    assert document["a"].endswith("x…")
    assert document["b"][1] == "short"


@pytest.mark.parametrize(("number", "expected"), [(10**30, 1 << 53), (-(10**30), -(1 << 53)), (200, 200)])
def test_numbers_beyond_what_json_readers_take_are_clamped(number: int, expected: int) -> None:
    assert json.loads(dumps({"status": number})) == {"status": expected}


class Lines:
    def __init__(self) -> None:
        self.lines: list[bytes] = []

    def offer(self, line: bytes) -> bool:
        self.lines.append(line)
        return True

    def close(self) -> None:
        pass


def test_an_event_is_one_valid_line_whatever_the_client_has_sent() -> None:
    sink = Lines()
    log = EventLog(session="s", sink=sink)
    fields = {"connection_id": "c", "request_id": "r", "host": "h", "port": 443, "scheme": "https"}
    more = {"upstream_address": None, "bytes_out": 0, "bytes_in": 0, "duration_ms": 1.0, "http_version": "HTTP/1.1"}

    log.emit(RequestClosed(**fields, **more, method="G\udcff", path='/\n{"event":"x"}\udc80', status=10**30))  # type: ignore[arg-type]
    log.emit(PolicyReloadFailed(source="s", problems=("x" * 9999,), generation=1, policy_hash=""))

    assert [line.count(b"\n") for line in sink.lines] == [1, 1]
    first, second = map(json.loads, sink.lines)
    assert (first["method"], first["path"], first["seq"]) == ("G%FF", '/\n{"event":"x"}%80', 0)
    assert len(second["problems"][0]) == MAX_TEXT
