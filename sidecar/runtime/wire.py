"""One connection of a driver: asyncio's protocol on one side, what mitmproxy's layers want of it on the other."""

import asyncio
from typing import TYPE_CHECKING, Any

from mitmproxy.connection import Connection
from mitmproxy.proxy import events

from addons import bounds

if TYPE_CHECKING:
    from sidecar.runtime.driver import Driver

LINGER_SECONDS = 30.0  # for a closed connection to take what was written to it
ANSWER_SECONDS = 2.0  # for a client that is still sending to see that it has been answered
AT_ONCE = 64  # that are given this time: they count as closed already, and descriptors are bounded

_answered: set[Any] = set()  # transports of those


class Wire(asyncio.Protocol):
    """A connection, a client's or an upstream's; ``handler`` and ``writer`` are mitmproxy's names for its parts."""

    connection: Connection

    def __init__(self, driver: "Driver | None" = None) -> None:
        self.transport: Any = None
        self.dial: asyncio.Task[None] | None = None  # of one to an upstream
        self.slot: asyncio.Semaphore | None = None  # is given back at its end
        self.open = False  # events are for the layers from then on
        self.full = False  # has more to write than it should hold
        self._stalled: asyncio.TimerHandle | None = None  # ends it, if that lasts too long
        self.told = False  # that nothing more comes
        self.ending = False
        self.reads = True
        self._driver = driver
        self._early: list[bytes] = []  # came before the layers knew of the connection
        self._early_end = False
        self.gathers = False  # what is sent, until `flush`
        self._outgoing: list[bytes] = []

    @property
    def handler(self) -> "Wire":
        return self

    @property
    def writer(self) -> Any:
        return self.transport

    def cancel(self, why: str = "") -> None:  # noqa: ARG002 (asyncio.Task's signature)
        """End it at once, whatever it is at; its hooks are called as for any end."""
        if self.dial is not None and not self.open:
            self.dial.cancel()
        elif self._driver is not None:
            self._driver.end(self)

    # asyncio's side

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        driver = self._driver
        if driver is None or self.ending:
            return
        if not self.open:
            self._early.append(data)
            self.transport.pause_reading()
            return
        if not self.gathers and self.connection.tls_established:
            self.gathers = True  # not from the start: the end of a handshake goes out at once
        driver.handle(events.DataReceived(self.connection, data))

    def eof_received(self) -> bool:
        if not self.open:
            self._early_end = True
        elif self._driver is not None and not self.ending:
            self._driver.peer_ended(self)
        return True  # the other direction stays open until a layer closes it

    def connection_lost(self, error: Exception | None) -> None:  # noqa: ARG002 (asyncio's signature)
        if self.open and self._driver is not None:
            self._driver.end(self)

    def pause_writing(self) -> None:
        self.full = True
        if (driver := self._driver) is not None:
            self._stalled = asyncio.get_running_loop().call_later(
                bounds.limits.stalled_seconds, driver.stalled, self.connection
            )
            driver.regulate()

    def resume_writing(self) -> None:
        self.full = False
        self._forget_stall()
        if self._driver is not None:
            self._driver.regulate()

    # the driver's side

    def opened(self) -> None:
        """The layers know of it: what has come meanwhile is theirs."""
        if self.ending:
            return
        self.open = True
        early, self._early = self._early, []
        if early and self.reads:
            self.transport.resume_reading()
        for data in early:
            self.data_received(data)
        if self._early_end:
            self.eof_received()
        if self.transport.is_closing() and self._driver is not None:
            self._driver.end(self)

    def adopt(self, transport: Any) -> None:
        """Go on with a connection that another wire has left."""
        transport.set_protocol(self)
        self.connection_made(transport)

    def leave_to(self, pool: Any) -> None:
        """Leave the connection for another client, if it's fit for that; the layers aren't told: they are over."""
        if (
            self.open
            and not (self.told or self.ending or self.full)
            and self.reads
            and pool.park(self.connection, self.transport)
        ):
            self.transport, self.told = None, True

    def send(self, data: bytes) -> bool:
        """
        Write *data*, or keep it for `flush`, which is due if this says so.

        Head and body are to be one segment (and within TLS one record), in both directions: an upstream that reads
        once, answers and closes would have left the rest unread, and its kernel would reset the connection.
        """
        if self.gathers:
            self._outgoing.append(data)
            return len(self._outgoing) == 1
        if not self.transport.is_closing():
            self.transport.write(data)
        return False

    def flush(self) -> None:
        """Write what was kept."""
        outgoing, self._outgoing = self._outgoing, []
        if not outgoing or self.transport is None or self.transport.is_closing():
            return
        if len(outgoing) == 1:
            self.transport.write(outgoing[0])
        else:
            self.transport.write(b"".join(outgoing))

    def read(self, wanted: bool) -> None:
        """Go on or stop reading."""
        if wanted is self.reads or self.transport is None or self.transport.is_closing():
            return
        self.reads = wanted
        if wanted:
            self.transport.resume_reading()
        else:
            self.transport.pause_reading()

    def _forget_stall(self) -> None:
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None

    def end_writing(self) -> None:
        self.flush()
        if not self.transport.is_closing():
            self.transport.write_eof()

    def close(self) -> None:
        """Close it once all is written, or `LINGER_SECONDS` later."""
        self._driver = None
        self._forget_stall()
        if (transport := self.transport) is None:
            return
        self.flush()
        sends_on = getattr(self.connection, "sends_on", False)
        if sends_on and len(_answered) < AT_ONCE and not transport.is_closing():
            # Closed at once, the kernel would reset it for what is unread, and the peer might never read its answer.
            # A peer that can't send on looks for one.
            self.read(False)
            transport.write_eof()
            _answered.add(transport)
            asyncio.get_running_loop().call_later(ANSWER_SECONDS, _close_answered, transport)
            return
        transport.close()
        if transport.get_write_buffer_size():
            asyncio.get_running_loop().call_later(LINGER_SECONDS, transport.abort)


def _close_answered(transport: Any) -> None:
    _answered.discard(transport)
    transport.close()
