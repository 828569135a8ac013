"""Which addons' functions a hook calls, resolved once per hook, not once per call; and how they are called."""

import inspect
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

from mitmproxy import exceptions
from mitmproxy.addonmanager import AddonManager, traverse

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


def call(name: str, functions: Iterator[Callable[[Any], Any]], data: Any) -> Awaitable[Any] | None:
    """
    Call what is left of a hook's functions, until one has to be awaited.

    As stock: an exception is logged, and the next addon asked (guarding hooks refuse by themselves, see
    `addons.guard`); `AddonHalt` ends the hook.
    """
    for function in functions:
        try:
            pending = function(data)
        except exceptions.AddonHalt:
            deque(functions, maxlen=0)
            return None
        except Exception:
            _log.exception("%s failed in an addon", name)
            continue
        if pending is not None and inspect.isawaitable(pending):
            return pending
    return None


async def call_on(name: str, functions: Iterator[Callable[[Any], Any]], data: Any, pending: Any) -> None:
    """Go on where `call` has stopped."""
    while pending is not None:
        try:
            await pending
        except exceptions.AddonHalt:
            return
        except Exception:
            _log.exception("%s failed in an addon", name)
        pending = call(name, functions, data)
