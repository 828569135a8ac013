"""Canaries over TCP: one line with a nonce, and the nonces that the sidecar's listeners wait for."""

import re
import time
from collections.abc import Callable, Iterable

SECONDS = 60.0  # after which a nonce is forgotten
MOST = 256  # nonces at once; the oldest goes first

_LINE = re.compile(rb"EGRESS-CANARY ([0-9a-f]{32})\r\n")
_NONCE = re.compile(r"[0-9a-f]{32}")


def canary_line(nonce: str) -> bytes:
    """What a canary says, whole and alone, as its first segment."""
    return f"EGRESS-CANARY {nonce}\r\n".encode()


def nonce_of(data: bytes) -> str | None:
    """The nonce, if *data* is a canary's line and nothing else."""
    found = _LINE.fullmatch(data)
    return found[1].decode() if found else None


def is_nonce(text: str) -> bool:
    return _NONCE.fullmatch(text) is not None


class Canaries:
    """
    The nonces that a fence check has announced, and which of them have arrived.

    Only announced ones count: the workload can neither fill the store nor give its own bytes out as a canary.

    Args:
        clock: Seconds, monotonic.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._announced: dict[str, float] = {}  # to the time of the announcement, oldest first
        self._arrived: set[str] = set()

    def announce(self, nonces: Iterable[str]) -> None:
        """These are about to be sent; they are waited for `SECONDS`."""
        now = self._clock()
        for nonce in nonces:
            self._announced.pop(nonce, None)
            self._announced[nonce] = now
        self._forget(now)

    def arrive(self, nonce: str) -> bool:
        """A listener has got this nonce; was it waited for?"""
        self._forget(self._clock())
        if nonce not in self._announced:
            return False
        self._arrived.add(nonce)
        return True

    def seen(self, nonce: str) -> bool:
        self._forget(self._clock())
        return nonce in self._arrived

    def _forget(self, now: float) -> None:
        for nonce, at in list(self._announced.items()):
            if len(self._announced) <= MOST and now - at < SECONDS:
                break
            del self._announced[nonce]
            self._arrived.discard(nonce)
