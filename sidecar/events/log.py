"""The event log: gives each event its envelope and its line, counts it into the summary, hands it to a sink."""

import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Protocol

from sidecar.events.model import SCHEMA, Event, EventsDropped, Level, SessionEnded
from sidecar.events.summary import Tally
from sidecar.events.text import dumps

_LAST_TRIES, _LAST_SECONDS = 50, 0.02  # for the last line to find room

_RANK: dict[Level, int] = {"debug": 0, "info": 1, "warning": 2, "error": 3}


class Sink(Protocol):
    """Where lines go. ``offer`` never blocks; it says whether the line was taken."""

    def offer(self, line: bytes) -> bool: ...
    def close(self) -> None: ...


class EventLog:
    """
    Numbers events and hands their lines to a sink; safe to call from any thread.

    ``seq`` is given to lines that the sink takes, so a file has no gaps; what it doesn't take is counted and
    reported by an ``events_dropped`` in front of the next line that it does.

    Args:
        session: The session's id, in every line.
        sink: Takes the lines.
        level: The least level that is written.
        now: The clock; aware, UTC.
    """

    def __init__(
        self,
        *,
        session: str,
        sink: Sink,
        level: Level = "info",
        worker: int = 0,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._session, self._sink, self._worker, self._now = session, sink, worker, now
        self._least = _RANK[level]
        self._lock = threading.Lock()
        self._seq = 0
        self._unreported = 0
        self._tally = Tally(started=now())
        self._observers: list[Callable[[Event], None]] = []
        self._envelopes: dict[type[Event], tuple[bytes, bytes]] = {}

    @property
    def connections(self) -> int:
        """Client connections since the start."""
        return self._tally.connections

    @property
    def dropped(self) -> int:
        """Events that the sink has not taken since the start."""
        return self._tally.dropped

    def observe(self, observer: Callable[[Event], None]) -> None:
        """Call *observer* with every event from now on, whatever its level: one at a time, and it must not raise."""
        self._observers.append(observer)

    def writes(self, level: Level) -> bool:
        """Whether events of this level are written."""
        return _RANK[level] >= self._least

    def emit(self, event: Event) -> None:
        """Write *event*, if its level is asked for. Never blocks, never raises for a slow or dead reader."""
        with self._lock:
            self._tally.count(event)
            for observer in self._observers:
                observer(event)
            if _RANK[event.level] >= self._least:
                self._write(event)

    def connection_opened(self) -> None:
        """Count a client connection into the summary."""
        with self._lock:
            self._tally.connection()

    def close(self) -> SessionEnded:
        """Write the summary as the session's last line, flush, and return it."""
        with self._lock:
            ended = SessionEnded(summary=self._tally.summary(self._now()))
            for _ in range(_LAST_TRIES):  # a queue that is full at the end must not take the end with it
                if self._report() and self._offer(ended):
                    break
                time.sleep(_LAST_SECONDS)
        self._sink.close()
        return ended

    def _write(self, event: Event) -> None:
        if not (self._report() and self._offer(event)):
            self._unreported += 1
            self._tally.dropped += 1

    def _report(self) -> bool:
        """Tell of what was dropped, if anything was; False if there is no room for that either."""
        if self._unreported and self._offer(EventsDropped(count=self._unreported)):
            self._unreported = 0
        return not self._unreported

    def _offer(self, event: Event) -> bool:
        if not self._sink.offer(self._line(event)):
            return False
        self._seq += 1
        return True

    def _line(self, event: Event) -> bytes:
        before, after = self._envelope(type(event))
        timestamp = self._now().isoformat(timespec="microseconds")[:26]  # without the offset, which is UTC's
        body = dumps(event)
        head = b'%b%d,"timestamp":"%bZ",%b' % (before, self._seq, timestamp.encode(), after)
        return head + (b"" if body == b"{}" else b",") + body[1:] + b"\n"

    def _envelope(self, kind: type[Event]) -> tuple[bytes, bytes]:
        """What all lines of a kind have in common: in front of ``seq``, and behind the timestamp."""
        found = self._envelopes.get(kind)
        if found is None:
            before = dumps({"event": kind.name, "schema": SCHEMA})[:-1] + b',"seq":'
            after = dumps({"session": self._session, "worker": self._worker, "level": kind.level})[1:-1]
            found = self._envelopes[kind] = before, after
        return found
