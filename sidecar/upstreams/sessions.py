"""TLS sessions with upstreams, kept to be resumed: by exactly the destination and the context that verified them."""

from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

from OpenSSL import SSL

MAX_SECONDS: Final = 3600.0  # from the verification; a resumption verifies nothing, and doesn't count


@dataclass(frozen=True, slots=True)
class Destination:
    """
    What a TLS connection with an upstream was verified for.

    Attributes:
        address: Of the peer, as it was dialled.
        context: Trust, revocation lists and our own certificate; each reading of policy or roots makes another.
    """

    host: str
    port: int
    address: tuple[str, int]
    offers: tuple[bytes, ...]
    context: SSL.Context


@dataclass(frozen=True, slots=True)
class Kept:
    """A session, and until when it may be resumed, by ``time.time()``: no longer than its chain is valid."""

    session: SSL.Session
    until: float


class Sessions:
    """
    The latest session with each destination.

    Args:
        most: How many are kept; then the one kept longest ago goes.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._kept: OrderedDict[Destination, Kept] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def take(self, destination: Destination, now: float) -> Kept | None:
        """Each is resumed once (RFC 8446, appendix C.4): the upstream sends new tickets."""
        kept = self._kept.pop(destination, None)
        return kept if kept is not None and now < kept.until else None

    def keep(self, destination: Destination, kept: Kept) -> None:
        self._kept.pop(destination, None)
        self._kept[destination] = kept
        if len(self._kept) > self._most:
            self._kept.popitem(last=False)

    def clear(self) -> None:
        self._kept.clear()
