"""Which addons' functions a hook calls: resolved once per hook, not once per call."""

from collections.abc import Callable
from typing import Any

from mitmproxy.addonmanager import AddonManager, traverse


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
