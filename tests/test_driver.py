"""How hooks reach addons: in their order, resolved once, halted and survived as mitmproxy does it."""

import asyncio
from typing import Any

from mitmproxy import exceptions, http
from mitmproxy.addonmanager import AddonManager
from mitmproxy.proxy import layer
from mitmproxy.test import taddons

from addons import internals
from sidecar.runtime.hooks import HookTable, call, call_on


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
