"""The CA's end is told ahead of time and when it has come: a timer, by a clock that may be set meanwhile."""

import asyncio
from collections.abc import Callable
from datetime import datetime

from sidecar.events.model import CaExpired, CaExpiring, Event
from sidecar.pki.expiry import moments, passed
from sidecar.pki.session_ca import SessionCa

LOOK_SECONDS = 60.0  # at most, between two looks at a clock that may jump


class Expiry:
    """
    Writes ``ca_expiring`` and ``ca_expired``, each moment once.

    Args:
        ca: Gives the CA in force.
        emit: Takes the events.
        now: The clock; aware, UTC.
    """

    def __init__(self, ca: Callable[[], SessionCa], emit: Callable[[Event], None], now: Callable[[], datetime]) -> None:
        self._ca, self._emit, self._now = ca, emit, now
        self._of: SessionCa | None = None
        self._told = 0  # moments of its end
        self._timer: asyncio.TimerHandle | None = None

    @property
    def near(self) -> bool:
        """The end is near enough to have been told of."""
        return self._told > 0

    def start(self) -> None:
        """Look now, and from now on by the running event loop's timer."""
        self.stop()
        self.look()
        ca, now = self._ca(), self._now()
        ahead = [(moment - now).total_seconds() for moment in moments(ca.not_before, ca.not_after) if moment > now]
        # A little late, so that it isn't a little early.
        self._timer = asyncio.get_running_loop().call_later(min([LOOK_SECONDS, *ahead]) + 0.01, self.start)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def look(self) -> None:
        """Tell what is to be told of the CA in force."""
        ca, now = self._ca(), self._now()
        if ca is not self._of:
            self._of, self._told = ca, 0
        over = passed(ca.not_before, ca.not_after, now)
        before, self._told = self._told, over  # fewer than before, if the clock was set back
        if over <= before:
            return
        told = {
            "subject": ca.certificate.subject.rfc4514_string(),
            "fingerprint_sha256": ca.fingerprint(),
            "not_after": ca.not_after.isoformat(),
        }
        if now >= ca.not_after:
            self._emit(CaExpired(**told))
        else:
            self._emit(CaExpiring(**told, remaining_seconds=int((ca.not_after - now).total_seconds())))
