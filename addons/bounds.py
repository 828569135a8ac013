"""The limits in force, for the parts of mitmproxy's that `addons.internals` replaces; and how these tell of one."""

import asyncio
import time
from typing import Any

from mitmproxy import ctx
from mitmproxy.addonmanager import traverse

from sidecar.ledger import ConnectionRecord, Ledger
from sidecar.limits import Limits

limits = Limits()


def use(these: Limits) -> None:
    """Have *these* in force from now on, in this process."""
    global limits
    limits = these


def reached(connection_id: str, limit: str, detail: str, *, ends: bool = True) -> None:
    """A client's connection, or one of its upstreams, is beyond a limit; whoever says so closes it."""
    ledger = _ledger()
    if ledger is not None:
        ledger.reach(limit, detail, ledger.find(connection_id), ends=ends)


def record_of(connection_id: str) -> ConnectionRecord | None:
    """The record of a client's connection; None if it has gone."""
    ledger = _ledger()
    return ledger.find(connection_id) if ledger is not None else None


def end_soon(connection_id: str) -> None:
    """Close a client's connection, once its layers are done with what they are at."""
    proxyserver: Any = ctx.master.addons.get("proxyserver")
    handler = proxyserver.connections.get(connection_id)
    if handler is not None and (io := handler.transports.get(handler.client)) is not None and io.handler:
        asyncio.get_running_loop().call_soon(io.handler.cancel, "beyond a limit")


def _ledger() -> Ledger | None:
    ledgers = (getattr(addon, "ledger", None) for addon in traverse(ctx.master.addons.chain))
    return next((ledger for ledger in ledgers if isinstance(ledger, Ledger)), None)


class Allowance:
    """
    So many at once, and as many again in a minute.

    Args:
        per_minute: How many.
    """

    __slots__ = ("_at", "_left", "_most")

    def __init__(self, per_minute: int) -> None:
        self._most = self._left = float(per_minute)
        self._at = time.monotonic()

    def take(self) -> bool:
        """One more; False if that's too many."""
        if self._left < 1:
            now = time.monotonic()
            self.give((now - self._at) * self._most / 60)
            self._at = now
            if self._left < 1:
                return False
        self._left -= 1
        return True

    def give(self, amount: float) -> None:
        """What makes up for so many."""
        self._left = min(self._most, self._left + amount)
