"""How hooks reach addons: in their order, resolved once, halted and survived as mitmproxy does it."""

import asyncio
from typing import Any

from mitmproxy import exceptions, http
from mitmproxy.addonmanager import AddonManager
from mitmproxy.connection import Server
from mitmproxy.proxy import events, layer
from mitmproxy.test import taddons

from addons import internals
from sidecar.runtime import wire
from sidecar.runtime.hooks import HookTable, call, call_on
from sidecar.runtime.wire import Wire


class Addon:
    def __init__(self, name: str, seen: list[str], does: str = "") -> None:
        self.name, self._seen, self._does = name, seen, does

    def next_layer(self, nextlayer: layer.NextLayer) -> Any:
        self._seen.append(self.name)
        match self._does:
            case "halt":
                raise exceptions.AddonHalt
            case "fail":
                raise RuntimeError("a defect")
            case "wait":
                return self._later()
        return None

    async def _later(self) -> None:
        await asyncio.sleep(0)
        self._seen.append(f"{self.name} later")


def trigger(*addons: object) -> None:
    """Trigger ``next_layer`` as a connection handler does."""
    with taddons.context() as tctx:
        manager: AddonManager = tctx.master.addons
        manager.chain = list(addons)
        functions = iter(HookTable(manager).functions("next_layer"))

        async def hook() -> None:
            data = object()
            await call_on("next_layer", functions, data, call("next_layer", functions, data))

        asyncio.run(hook())


def test_addons_are_called_in_their_order_and_awaited() -> None:
    seen: list[str] = []

    trigger(Addon("first", seen, "wait"), Addon("second", seen))

    assert seen == ["first", "first later", "second"]


def test_a_halt_ends_the_hook() -> None:
    seen: list[str] = []

    trigger(Addon("first", seen, "halt"), Addon("second", seen))

    assert seen == ["first"]


def test_an_exception_is_logged_and_the_next_addon_asked(caplog: Any) -> None:
    seen: list[str] = []

    trigger(Addon("first", seen, "fail"), Addon("second", seen))

    assert seen == ["first", "second"]
    assert "a defect" in caplog.text


def test_an_addon_inside_of_another_is_found() -> None:
    seen: list[str] = []
    outer = Addon("outer", seen)
    outer.addons = [Addon("inner", seen)]  # type: ignore[attr-defined]

    trigger(outer)

    assert seen == ["outer", "inner"]


def test_an_addon_that_comes_later_is_called() -> None:
    seen: list[str] = []
    with taddons.context() as tctx:
        manager: AddonManager = tctx.master.addons
        manager.chain = [Addon("first", seen)]
        table = HookTable(manager)
        before = len(table.functions("next_layer"))
        manager.chain.append(Addon("second", seen))

        assert (before, len(table.functions("next_layer"))) == (1, 2)


def test_the_type_check_of_messages_is_off_since_it_costs_seven_percent() -> None:
    internals.install()

    # A time that is no number: with the check on, this raises TypeError.
    http.Response(b"HTTP/1.1", 200, b"OK", http.Headers(), b"", None, "never", None)  # type: ignore[arg-type]


class Transport:
    """What a wire does to it."""

    def __init__(self) -> None:
        self.did: list[str] = []

    def pause_reading(self) -> None:
        self.did.append("pause")

    def resume_reading(self) -> None:
        self.did.append("resume")

    def is_closing(self) -> bool:
        return False

    def write_eof(self) -> None:
        self.did.append("eof")

    def close(self) -> None:
        self.did.append("close")

    def get_write_buffer_size(self) -> int:
        return 0


class Told:
    """A driver that notes what it is told."""

    def __init__(self) -> None:
        self.heard: list[object] = []

    def handle(self, event: events.DataReceived) -> None:
        self.heard.append(event.data)

    def peer_ended(self, wire: Wire) -> None:
        self.heard.append("end")


def test_what_comes_before_the_layers_know_of_a_connection_is_kept_for_them_and_its_end_too() -> None:
    driver, transport = Told(), Transport()
    early = Wire(driver)  # type: ignore[arg-type]
    early.connection = Server(address=("example.com", 443))
    early.connection_made(transport)

    early.data_received(b"early")
    early.eof_received()
    assert (driver.heard, transport.did) == ([], ["pause"])
    early.opened()

    assert (driver.heard, transport.did) == ([b"early", "end"], ["pause", "resume"])


def test_a_client_that_sends_on_is_given_time_to_read_its_answer_but_not_any_number_of_them() -> None:
    async def close(number: int) -> list[list[str]]:
        transports = [Transport() for _ in range(number)]
        for transport in transports:
            left = Wire()
            left.connection = Server(address=("example.com", 443))
            left.connection.sends_on = True
            left.connection_made(transport)
            left.close()
        return [transport.did for transport in transports]

    did = asyncio.run(close(wire.AT_ONCE + 1))
    wire._answered.clear()

    assert did == [["pause", "eof"]] * wire.AT_ONCE + [["close"]]
