"""The event log: numbered without gaps, dropped lines counted and reported, the summary last."""

import errno
import json
import os
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from sidecar.errors import CannotRun
from sidecar.events import sinks
from sidecar.events.log import EventLog, Sink
from sidecar.events.model import EVENTS, DnsDenied, RequestAllowed, RequestClosed, RequestDenied, RequestOpened
from sidecar.events.schema import event_schema
from sidecar.events.sinks import FileSink, StreamSink
from sidecar.reasons import Reason
from tests.live.sidecars import until

NOW = datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=UTC)
REQUEST: dict[str, Any] = {
    "connection_id": "c",
    "request_id": "r",
    "host": "a.test",
    "port": 443,
    "scheme": "https",
    "method": "GET",
    "path": "/",
    "http_version": "HTTP/1.1",
}


def denied(host: str = "a.test", reason: Reason = Reason.DEFAULT_DENY) -> RequestDenied:
    fields = REQUEST | {"host": host}
    return RequestDenied(
        **fields, reason=reason, rule=None, detail="", status=403, policy_generation=1, policy_hash="h"
    )


class Full:
    """A sink that takes lines only while it has room."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.lines: list[dict[str, Any]] = []

    def offer(self, line: bytes) -> bool:
        if self.room <= 0:
            return False
        self.room -= 1
        assert line.endswith(b"\n")
        self.lines.append(json.loads(line))
        return True

    def close(self) -> None:
        pass


def log_to(sink: Sink, **options: Any) -> EventLog:
    return EventLog(session="s", sink=sink, now=lambda: NOW, **options)


def test_a_line_has_its_envelope_first() -> None:
    sink = Full(10)

    log_to(sink).emit(denied())

    [line] = sink.lines
    assert list(line)[:7] == ["event", "schema", "seq", "timestamp", "session", "worker", "level"]
    assert line["timestamp"] == "2026-01-02T03:04:05.000678Z"
    assert line["level"] == "warning"


def test_what_a_full_sink_refuses_is_counted_and_reported_before_the_next_line() -> None:
    sink = Full(2)
    log = log_to(sink)
    for _ in range(5):
        log.emit(denied())

    sink.room = 10
    log.emit(denied())
    ended = log.close()

    names = [line["event"] for line in sink.lines]
    assert names == ["request_denied", "request_denied", "events_dropped", "request_denied", "session_ended"]
    assert sink.lines[2]["count"] == 3
    assert [line["seq"] for line in sink.lines] == [0, 1, 2, 3, 4]
    assert ended.summary.events_dropped == 3
    assert ended.summary.requests_denied == 6


def test_debug_events_are_written_only_when_asked_for() -> None:
    quiet, loud = Full(9), Full(9)
    for sink, level in ((quiet, "info"), (loud, "debug")):
        log_to(sink, level=level).emit(RequestOpened(**REQUEST))

    assert quiet.lines == []
    assert [line["event"] for line in loud.lines] == ["request_opened"]


def test_the_summary_counts_by_host_and_reason() -> None:
    sink = Full(99)
    log = log_to(sink)
    log.connection_opened()
    log.emit(RequestAllowed(**REQUEST, reason=Reason.RULE_ALLOW, rule="r", policy_generation=1, policy_hash="h"))
    log.emit(RequestClosed(**REQUEST, status=200, upstream_address=None, bytes_out=3, bytes_in=5, duration_ms=1.5))
    log.emit(denied("b.test"))
    log.emit(denied("b.test", Reason.PRIVATE_ADDRESS))

    summary = log.close().summary

    assert (summary.connections, summary.requests_allowed, summary.requests_denied) == (1, 1, 2)
    assert (summary.bytes_in, summary.bytes_out) == (5, 3)
    assert summary.denied_by_reason == {"default_deny": 1, "private_address": 1}
    by_host = {seen.host: (seen.allowed, seen.denied) for seen in summary.hosts}
    assert by_host == {"a.test": (1, 0), "b.test": (0, 2)}


def test_the_summary_is_bounded_whatever_was_asked_for() -> None:
    log = log_to(Full(10_000))
    for number in range(3000):
        log.emit(denied(f"h{number}.test"))

    summary = log.close().summary

    assert len(summary.hosts) == 50
    assert summary.requests_denied == 3000
    assert summary.hosts_omitted == 2950


def test_a_file_sink_appends_private_lines(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(b"{}\n")
    sink = FileSink(path)

    assert sink.offer(b'{"a": 1}\n')
    sink.close()

    assert path.read_bytes() == b'{}\n{"a": 1}\n'


def test_a_new_events_file_is_private(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    FileSink(path).close()

    assert path.stat().st_mode & 0o777 == 0o600


def test_an_events_file_that_can_not_be_opened_says_so(tmp_path: Path) -> None:
    with pytest.raises(CannotRun, match="events can't be written there"):
        FileSink(tmp_path / "missing" / "events.jsonl")


def test_a_reader_that_is_stuck_never_blocks_the_writer() -> None:
    read, write = os.pipe()
    sink = StreamSink(write, lines=10)
    line = b"x" * 65_536 + b"\n"

    taken = [sink.offer(line) for _ in range(100)]

    assert False in taken
    reader = threading.Thread(target=_drain, args=(read,))
    reader.start()
    sink.close()
    os.close(write)
    reader.join(10)
    os.close(read)
    assert not reader.is_alive()


def test_lines_that_wait_are_bounded_in_bytes_too() -> None:
    read, write = os.pipe()
    sink = StreamSink(write, size=1 << 20)
    line = b"x" * 65_536 + b"\n"

    taken = sum(sink.offer(line) for _ in range(100))

    assert taken <= 2 * 16  # those that wait, and those that the writer has taken before and is stuck with
    threading.Thread(target=_drain, args=(read,), daemon=True).start()
    sink.close()
    os.close(write)


def _drain(fd: int) -> None:
    while os.read(fd, 1 << 20):
        pass


def test_a_reader_that_is_gone_makes_the_sink_refuse() -> None:
    read, write = os.pipe()
    os.close(read)
    sink = StreamSink(write)
    sink.offer(b"{}\n")
    sink._thread.join(10)

    assert sink.offer(b"{}\n") is False
    sink.close()
    os.close(write)


def test_every_event_is_told_apart_and_bounded_by_the_schema() -> None:
    schema = event_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    sink = Full(9)
    log_to(sink).emit(DnsDenied(query="a.test", type="TXT", reason="dns_type"))

    [line] = sink.lines
    validator.validate(line)
    assert set(schema["$defs"]) >= {event.name for event in EVENTS}
    with pytest.raises(jsonschema.ValidationError):
        validator.validate(line | {"unknown": 1})
    with pytest.raises(jsonschema.ValidationError):
        validator.validate({key: value for key, value in line.items() if key != "seq"})


def test_a_full_disk_is_told_once_on_standard_error(caplog: pytest.LogCaptureFixture) -> None:
    sink = FileSink(Path("/dev/full"))
    assert sink.offer(b"{}\n")
    sink.close()

    assert not sink.offer(b"{}\n")
    assert [record.getMessage() for record in caplog.records] == [
        "events can't be written, and wait as far as there is room: No space left on device"
    ]


def test_a_disk_that_was_full_and_has_room_again_gets_every_line_that_was_taken_and_a_count_of_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path, room, write = tmp_path / "events.jsonl", threading.Event(), os.write

    def full(fd: int, data: bytes) -> int:
        if threading.current_thread().name != "events":
            return write(fd, data)
        if not room.is_set():
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(fd, bytes(data)[:100])  # in pieces, as a disk that is nearly full takes them

    monkeypatch.setattr(os, "write", full)
    monkeypatch.setattr(sinks, "RETRY_SECONDS", 0.01)
    log = log_to(FileSink(path, lines=4))
    for number in range(20):
        log.emit(DnsDenied(query=f"{number}.test", type="A", reason="dns_type"))
    assert log.dropped
    until(lambda: list(caplog.records), "complaint")
    room.set()
    until(lambda: path.exists() and path.read_bytes().endswith(b"\n"), "lines")
    log.emit(DnsDenied(query="after.test", type="A", reason="dns_type"))
    log.close()

    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["seq"] for line in lines] == list(range(len(lines)))
    dropped = next(line for line in lines if line["event"] == "events_dropped")["count"]
    assert sum(line["event"] == "dns_denied" for line in lines) + dropped == 21
    assert lines[-2]["query"] == "after.test"
    assert [record.levelname for record in caplog.records] == ["ERROR", "WARNING"]
