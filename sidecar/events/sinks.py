"""Where event lines go: a file or a stream, written by a thread of its own from a bounded queue."""

import errno
import logging
import os
import threading
from collections import deque
from pathlib import Path

from sidecar.errors import CannotRun
from sidecar.limits import Limits

_log = logging.getLogger(__name__)

RETRY_SECONDS = 1.0
_CLOSE_SECONDS = 5.0
# Between the first line and the write, for others to come: a thread's turn costs as much as ten of them.
_GATHER_SECONDS = 0.025


class StreamSink:
    """
    Writes lines to a file descriptor from a thread, so that a slow reader never slows a request.

    What can't be written (the disk is full) is tried again, from where it stopped: no line is torn or lost but those
    that the queue has no room for, which `offer` refuses. Only where the reader is gone nothing is taken any longer.

    Args:
        fd: Where to write; owned by the caller.
        lines: That may wait. Beyond it, or *size* bytes, `offer` says no.
    """

    def __init__(self, fd: int, lines: int = Limits().event_lines, size: int = Limits().event_bytes) -> None:
        self._fd, self._most_lines, self._most_bytes = fd, lines, size
        self._bytes = 0  # of the lines that wait
        self._lines: deque[bytes] = deque()
        self._wake = threading.Condition()
        self._closing = False
        self._hurry = threading.Event()  # set with `_closing`
        self._broken = False
        self._thread = threading.Thread(target=self._run, name="events", daemon=True)
        self._thread.start()

    def offer(self, line: bytes) -> bool:
        with self._wake:
            if self._broken or self._closing or len(self._lines) >= self._most_lines:
                return False
            if self._bytes + len(line) > self._most_bytes:
                return False
            self._lines.append(line)
            self._bytes += len(line)
            if len(self._lines) == 1:  # else the thread is awake already
                self._wake.notify()
        return True

    def close(self) -> None:
        """Write what waits (for at most five seconds: the reader may be stuck) and stop."""
        with self._wake:
            self._closing = True
            self._hurry.set()
            self._wake.notify()
        self._thread.join(_CLOSE_SECONDS)

    def _run(self) -> None:
        while True:
            with self._wake:
                while not self._lines and not self._closing:
                    self._wake.wait()
            self._hurry.wait(_GATHER_SECONDS)
            with self._wake:
                chunk = b"".join(self._lines)
                self._lines.clear()
                self._bytes = 0
                if not chunk:
                    return
            if not self._write(chunk):
                with self._wake:
                    self._broken = True
                    self._lines.clear()
                return

    def _write(self, chunk: bytes) -> bool:
        """Write all of it, however long that takes; False if it can't be done."""
        view, failed = memoryview(chunk), False
        while view:
            try:
                view = view[os.write(self._fd, view) :]
            except OSError as e:
                if e.errno in (errno.EPIPE, errno.EBADF):
                    _log.error("events can't be written any longer, and are dropped until a restart: %s", e.strerror)
                    return False
                if not failed:
                    _log.error("events can't be written, and wait as far as there is room: %s", e.strerror)
                failed = True
                with self._wake:
                    if self._closing:
                        return False
                    self._wake.wait_for(lambda: self._closing, RETRY_SECONDS)
        if failed:
            _log.warning("events are written again")
        return True


class FileSink(StreamSink):
    """
    Appends lines to *path*, made 0600: events tell what a workload does.

    Raises:
        CannotRun: The file can't be opened for appending.
    """

    def __init__(self, path: Path, lines: int = Limits().event_lines, size: int = Limits().event_bytes) -> None:
        try:
            fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as e:
            raise CannotRun(
                f"{path}: events can't be written there: {e.strerror}; name a file that this user may write"
            ) from None
        super().__init__(fd, lines=lines, size=size)

    def close(self) -> None:
        super().close()
        os.close(self._fd)
