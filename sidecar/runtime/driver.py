"""
The I/O under mitmproxy's layers: protocols instead of streams, calls instead of tasks.

mitmproxy's own handler has a reading task for each connection, a task for each hook, a lock around each event and a
StreamReader that copies all bytes once more: half of a request's cost. Its layers know nothing of that. They take
events and give commands, and this module is another place to carry those out.

Everything of one client happens in `Driver.handle`, one event after the other: an event that comes up meanwhile (a hook
that has completed, a connection that has ended) waits until the layers are done with the one before.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import cache
from typing import Any

from mitmproxy import flow
from mitmproxy.connection import Client, Connection, ConnectionState
from mitmproxy.hooks import UpdateHook
from mitmproxy.proxy import commands, context, events, layer, server_hooks

from addons import bounds, http2, idle, waiting
from addons.pool import Pool
from sidecar.runtime.farewell import turn_away
from sidecar.runtime.hooks import HookTable, call, call_on
from sidecar.runtime.plumbing import Tunnelled, call_inline, is_transient, settled
from sidecar.runtime.wire import Wire

_log = logging.getLogger(__name__)

_CAN_READ, _CAN_WRITE, _CLOSED = ConnectionState.CAN_READ, ConnectionState.CAN_WRITE, ConnectionState.CLOSED


class ClientWire(Wire):
    """
    A client's connection: makes the driver that it belongs to.

    Args:
        shared: What all drivers of a master have.
        mode: Of the listener that has taken the connection.
        begin: Puts the first layer into the driver; False where the connection is refused.
    """

    def __init__(self, shared: "Shared", mode: Any, begin: "Callable[[Driver, Any], bool]") -> None:
        super().__init__()
        self._shared, self._mode, self._begin = shared, mode, begin
        self.gathers = True

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        driver = Driver(transport, self, self._shared, self._mode)
        self.connection = driver.client
        if self._begin(driver, transport):
            self._driver = driver
            driver.start()
        else:
            transport.close()


@dataclass(frozen=True, slots=True)
class Shared:
    """What all drivers of a master have."""

    options: Any
    hooks: HookTable
    connections: dict[Any, Any]  # the proxy server's, by the client's id
    pool: Pool | None = None


class Driver:
    """
    Drives mitmproxy's layers for one client connection.

    It has the parts of mitmproxy's ``ConnectionHandler`` that addons and `addons.internals` use: ``client``, ``layer``,
    ``transports``, ``server_event``.
    """

    def __init__(self, transport: Any, wire: Wire, shared: Shared, mode: Any) -> None:
        self.client = Client(
            transport_protocol="tcp",
            peername=transport.get_extra_info("peername"),
            sockname=transport.get_extra_info("sockname"),
            timestamp_start=time.time(),
            proxy_mode=mode,
            state=ConnectionState.OPEN,
        )
        self.layer: Any = layer.NextLayer(context.Context(self.client, shared.options), ask_on_start=True)
        self.transports: dict[Connection, Wire] = {self.client: wire}
        self.idle_seconds: float = shared.options.tcp_timeout
        self._hooks, self._connections, self._wire = shared.hooks, shared.connections, wire
        self._pool = shared.pool
        self._loop = asyncio.get_running_loop()
        self._queue: deque[events.Event | Callable[[], None]] = deque()
        self._ends: deque[Wire] = deque()  # are over, which is told once the queue is empty
        self._running = False
        self._held_up = False  # a connection isn't read from
        self._unsent: list[Wire] = []  # have something to flush
        self._tasks: set[asyncio.Task[None]] = set()
        self._timers: set[asyncio.TimerHandle] = set()
        self._begun: dict[commands.StartHook, tuple[Any, Any, Any]] = {}  # hooks that a layer has called, and waits for
        self._waiting = 0  # hooks that are awaited; they may take their time
        self._dials: dict[Any, asyncio.Semaphore] = {}
        self._active = self._loop.time()
        self._idle: asyncio.TimerHandle | None = None
        self._over = False
        self._settling = True  # the layers that come first are there to find others
        self._inside = False  # of a CONNECT
        call_inline(self.client, self._answer)

    # the life of the connection

    def start(self) -> None:
        """Tell of the client, and have the layers begin."""
        self._connections[self.client.id] = self
        self._idle = self._loop.call_later(self.idle_seconds, self._look_idle)
        self._hook(server_hooks.ClientConnectedHook(self.client), self._begin)

    def _begin(self) -> None:
        if self.client.error:
            turn_away(self._wire, self.client, lambda: self.end(self._wire))
            return
        self.handle(events.Start())
        self._wire.opened()

    def peer_ended(self, wire: Wire) -> None:
        """The peer sends no more; a TCP connection may go on in the other direction."""
        wire.connection.state &= ~_CAN_READ
        wire.told = True
        self.handle(events.ConnectionClosed(wire.connection))

    def end(self, wire: Wire) -> None:
        """It is over for this connection; the layers hear of it, then it is closed."""
        if wire.ending:
            return
        wire.ending = True
        wire.connection.state = _CLOSED
        self._ends.append(wire)
        self._run()

    def _tell_end(self, wire: Wire) -> None:
        if wire.open and not wire.told:
            wire.told = True
            self._queue.append(events.ConnectionClosed(wire.connection))
        self._queue.append(lambda: self._finish(wire))

    def _finish(self, wire: Wire) -> None:
        wire.close()
        self.transports.pop(wire.connection, None)
        wire.connection.timestamp_end = time.time()
        if wire is self._wire:
            self._hook(server_hooks.ClientDisconnectedHook(self.client), self._end_others)
            return
        if wire.slot is not None:
            wire.slot.release()
        data = server_hooks.ServerConnectionHookData(client=self.client, server=wire.connection)  # type: ignore[arg-type]
        self._hook(server_hooks.ServerDisconnectedHook(data), self._forget_if_over)

    def _end_others(self) -> None:
        self._over = True
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()
        if self._idle is not None:
            self._idle.cancel()
        for wire in list(self.transports.values()):
            if self._pool is not None and not self._waiting:
                wire.leave_to(self._pool)
            wire.cancel("client disconnected")
        self._forget_if_over()

    def _forget_if_over(self) -> None:
        if self._over and not self.transports:
            self._connections.pop(self.client.id, None)

    # events and commands

    async def server_event(self, event: events.Event) -> None:
        """As mitmproxy's handler has it, for those who have an event of their own."""
        self.handle(event)

    def handle(self, event: events.Event) -> None:
        """Give the layers an event and carry out what they want."""
        self._queue.append(event)
        self._run()

    def _run(self) -> None:
        if self._running:
            return
        self._running = True
        self._active = self._loop.time()
        queue = self._queue
        try:
            while queue or self._ends:
                if not queue:
                    # A layer that closes a connection often goes on, with hooks that its records need.
                    self._tell_end(self._ends.popleft())
                event = queue.popleft()
                if not isinstance(event, events.Event):
                    event()
                    continue
                if self._settling:
                    self.layer = settled(self.layer)
                    self._settling = is_transient(self.layer)
                try:
                    for command in self.layer.handle_event(event):
                        _carry_out(command.__class__)(self, command)
                except Exception:
                    # The layers can't be told anything sensible any more. Nothing goes through what is closed.
                    _log.exception("mitmproxy's layers have failed; the connection is closed")
                    self.end(self._wire)
        finally:
            self._running = False
        while self._unsent:
            self._unsent.pop().flush()
        if self._held_up or http2.holding():
            self.regulate()

    def _give(self, to: Any, event: events.Event) -> None:
        try:
            for command in to.handle_event(event):
                _carry_out(command.__class__)(self, command)
        except Exception:
            _log.exception("mitmproxy's layers have failed; the connection is closed")
            self.end(self._wire)

    def _send(self, command: commands.SendData) -> None:
        wire = self.transports.get(command.connection)
        if wire is not None and wire.transport is not None and wire.send(command.data):
            self._unsent.append(wire)

    def _close(self, command: commands.CloseConnection) -> None:
        wire = self.transports.get(command.connection)
        if wire is None:
            return
        connection = command.connection
        # As mitmproxy does it inside of a CONNECT: there both directions end at once.
        if getattr(command, "half_close", False) and not self._inside:
            if not connection.state & _CAN_WRITE or wire.transport is None:
                return
            try:
                wire.end_writing()
            except OSError:
                connection.state = _CLOSED  # what can't be written to is dead
            else:
                connection.state &= ~_CAN_WRITE
            if connection.state is not _CLOSED:
                return
        connection.state = _CLOSED
        wire.cancel("closed by command")

    def _tunnelled(self, command: Tunnelled) -> None:
        self._settling = self._inside = True
        if isinstance(self.layer, layer.Layer):
            self.layer = command.inside
        else:  # one who stands before the layers, as `sidecar.runtime.revocation` does
            self.layer.inner, self.layer.context = command.inside, command.inside.context

    def _start_hook(self, command: commands.StartHook) -> None:
        done = (lambda: self.handle(events.HookCompleted(command))) if command.blocking else _nothing
        if (begun := self._begun.pop(command, None)) is not None:
            self._follow(command, *begun, done)
        else:
            self._hook(command, done)

    def _wake_up(self, command: commands.RequestWakeup) -> None:
        asked = self.layer  # another one may be settled on until then, and know nothing of it

        def wake() -> None:
            self._timers.discard(timer)
            self._queue.append(lambda: self._give(asked, events.Wakeup(command)))
            self._run()

        timer = self._loop.call_later(command.delay, wake)
        self._timers.add(timer)

    def _log_command(self, command: commands.Log) -> None:
        _log.log(command.level, "%s", command.message, extra={"client": self.client.peername})

    # hooks

    def _answer(self, hook: commands.StartHook) -> bool:
        """Call a hook's functions in the layer that asks; if one has to be awaited, `_start_hook` will go on."""
        data = _subject(hook)
        functions = iter(self._hooks.functions(hook.name))
        pending = call(hook.name, functions, data)
        if self._is_done(data, pending):
            return True
        self._begun[hook] = (functions, data, pending)
        return False

    def _is_done(self, data: Any, pending: Any) -> bool:
        return pending is None and not (
            isinstance(data, flow.Flow) and (data.intercepted or self._hooks.functions(UpdateHook.name))
        )

    def _hook(self, hook: commands.StartHook, done: Callable[[], None]) -> None:
        """Call a hook's functions; *done* follows at once, or when the last has been awaited."""
        data = _subject(hook)
        functions = iter(self._hooks.functions(hook.name))
        pending = call(hook.name, functions, data)
        if self._is_done(data, pending):
            done()
        else:
            self._follow(hook, functions, data, pending, done)

    def _follow(self, hook: Any, functions: Any, data: Any, pending: Any, done: Callable[[], None]) -> None:
        self._waiting += 1
        self._task(self._await(hook, functions, data, pending, done))

    async def _await(self, hook: Any, functions: Any, data: Any, pending: Any, done: Callable[[], None]) -> None:
        try:
            await call_on(hook.name, functions, data, pending)
            if isinstance(data, flow.Flow):
                updates = iter(self._hooks.functions(UpdateHook.name))
                await call_on(UpdateHook.name, updates, [data], call(UpdateHook.name, updates, [data]))
                await data.wait_for_resume()
        finally:
            self._waiting -= 1
        done()

    async def _hook_here(self, hook: commands.StartHook) -> None:
        """Call a hook in the very task that awaits it: a context variable that it sets is seen there."""
        data = _subject(hook)
        functions = iter(self._hooks.functions(hook.name))
        await call_on(hook.name, functions, data, call(hook.name, functions, data))

    def _task(self, coroutine: Any) -> asyncio.Task[None]:
        task: asyncio.Task[None] = self._loop.create_task(coroutine)
        if not task.done():
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return task

    # upstreams

    def _open(self, command: commands.OpenConnection) -> None:
        wire = Wire(self)
        wire.connection = command.connection
        self.transports[command.connection] = wire
        wire.dial = self._task(self._dial(command, wire))

    async def _dial(self, command: commands.OpenConnection, wire: Wire) -> None:
        server, slot = command.connection, None
        data = server_hooks.ServerConnectionHookData(client=self.client, server=server)
        try:
            if not server.address:
                raise OSError("no address to connect to")
            await self._hook_here(server_hooks.ServerConnectHook(data))
            if server.error:
                raise OSError(server.error)
            slot = self._dials.setdefault(server.address, asyncio.Semaphore(bounds.limits.upstreams_per_address))
            await slot.acquire()
            wire.slot = slot
            server.timestamp_start = time.time()
            if self._pool is not None and (left := self._pool.claim(server)) is not None:
                wire.adopt(left)
            else:
                await self._loop.create_connection(lambda: wire, *server.address[:2])
            server.timestamp_tcp_setup = time.time()
            server.state = ConnectionState.OPEN
            server.peername = wire.transport.get_extra_info("peername")
            server.sockname = wire.transport.get_extra_info("sockname")
            await self._hook_here(server_hooks.ServerConnectedHook(data))
        except asyncio.CancelledError:
            error = "connection cancelled"
        except OSError as e:
            error = str(e)
        except Exception as e:
            _log.exception("an upstream could not be dialled")
            error = f"internal error: {type(e).__name__}"
        else:
            wire.open = True  # the layers may close it at once
            wire.gathers = not server.tls
            self.handle(events.OpenConnectionCompleted(command, None))
            wire.opened()
            return
        server.error, server.state = error, _CLOSED
        if wire.slot is not None:
            wire.slot.release()
        if wire.transport is not None:
            wire.transport.abort()
        del self.transports[server]
        await self._hook_here(server_hooks.ServerConnectErrorHook(data))
        self.handle(events.OpenConnectionCompleted(command, error))
        self._forget_if_over()

    # pace

    def regulate(self) -> None:
        """Read where there is room for what comes: a slow peer slows the other one. HTTP/2's windows count, too."""
        full = any(wire.full for wire in self.transports.values())
        client_full = http2.is_full(self.client)
        for connection, wire in self.transports.items():
            if connection is not self.client:
                wire.read(not full and not client_full)
        # Its window updates come by the same way: where it holds up its own downloads, it is read all the same.
        upstream_full = any(
            http2.is_full(connection) for connection in self.transports if connection is not self.client
        )
        waits = waiting.is_full(self.client)
        self._wire.read(not full and not waits and (client_full or not upstream_full))
        self._held_up = not all(wire.reads for wire in self.transports.values())

    def stalled(self, connection: Connection) -> None:
        """A peer has not taken what waits for it for too long."""
        who = "client" if connection is self.client else "upstream"
        text = f"the {who} has not taken what waits for it within {bounds.limits.stalled_seconds:g} s"
        bounds.reached(self.client.id, "stalled_seconds", text)
        self._wire.cancel("stalled")

    def _look_idle(self) -> None:
        left = self.idle_seconds if self._waiting else self._active + self.idle_seconds - self._loop.time()
        if left > 0:
            self._idle = self._loop.call_later(left, self._look_idle)
        else:
            idle.timed_out(self.client.id, self.idle_seconds)
            self._wire.cancel("timeout")


def _nothing() -> None:
    pass


_KINDS: tuple[tuple[type[commands.Command], Callable[[Any, Any], None]], ...] = (
    (commands.OpenConnection, Driver._open),
    (commands.SendData, Driver._send),
    (commands.CloseConnection, Driver._close),
    (commands.StartHook, Driver._start_hook),
    (commands.RequestWakeup, Driver._wake_up),
    (commands.Log, Driver._log_command),
    (Tunnelled, Driver._tunnelled),
)


@cache
def _field(kind: Any) -> str:
    (field,) = fields(kind)
    return field.name


def _subject(hook: commands.StartHook) -> Any:
    """What a hook is about: its one argument, as ``hook.args()`` gives it, without looking at the class each time."""
    kind: Any = hook.__class__
    return getattr(hook, _field(kind))


@cache
def _carry_out(kind: Any) -> Callable[[Driver, Any], None]:
    """What carries out commands of a kind; hooks have a class each."""
    return next(function for base, function in _KINDS if issubclass(kind, base))
