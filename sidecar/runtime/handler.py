"""mitmproxy's connection handler with a shorter way to the addons: resolved once per hook, called inline."""

import inspect
import logging
from collections.abc import Callable
from typing import Any

from mitmproxy import exceptions, flow
from mitmproxy.addonmanager import AddonManager, traverse
from mitmproxy.hooks import UpdateHook
from mitmproxy.proxy import commands
from mitmproxy.proxy.mode_servers import ProxyConnectionHandler

_log = logging.getLogger(__name__)


class HookTable:
    """Which functions each hook calls, in the addons' order; looked up anew when addons come or go."""

    def __init__(self, addons: AddonManager) -> None:
        self._addons = addons
        self._chain: list[object] = []
        self._functions: dict[str, tuple[Callable[[Any], Any], ...]] = {}

    def functions(self, name: str) -> tuple[Callable[[Any], Any], ...]:
        """What to call for the hook *name*."""
        if self._chain != self._addons.chain:
            self._chain = list(self._addons.chain)
            self._functions.clear()
        found = self._functions.get(name)
        if found is None:
            candidates = (getattr(addon, name, None) for addon in traverse(self._chain))
            found = tuple(function for function in candidates if callable(function))
            self._functions[name] = found
        return found


class Handler(ProxyConnectionHandler):
    """
    Stock, but for how hooks reach addons.

    As stock: an exception is logged, and the hook goes on to the next addon (guarding hooks refuse by themselves,
    see `addons.guard`); `AddonHalt` ends the hook; an intercepted flow waits.
    """

    hooks: HookTable

    async def handle_hook(self, hook: commands.StartHook) -> None:
        (data,) = hook.args()
        with self.timeout_watchdog.disarm():
            await self._call(hook.name, data)
            if isinstance(data, flow.Flow):
                if self.hooks.functions(UpdateHook.name):
                    await self._call(UpdateHook.name, [data])
                await data.wait_for_resume()

    async def _call(self, name: str, data: Any) -> None:
        for function in self.hooks.functions(name):
            try:
                pending = function(data)
                if pending is not None and inspect.isawaitable(pending):
                    await pending
            except exceptions.AddonHalt:
                return
            except Exception:
                _log.exception("%s failed in an addon", name)


def handler_for(master: Any, reader: Any, writer: Any, options: Any, mode: Any) -> Handler:
    """The handler of a new connection; the table is made with the first one and shared by all of a master's."""
    handler: Handler = Handler(master, reader, writer, options, mode)  # type: ignore[no-untyped-call]
    table = getattr(master, "egress_hooks", None)
    if table is None:
        table = master.egress_hooks = HookTable(master.addons)
    handler.hooks = table
    return handler
