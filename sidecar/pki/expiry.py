"""When to say that a CA is about to end: moments computed from its validity, without a clock of their own."""

from datetime import datetime, timedelta

_MONTH, _WEEK, _HOUR = timedelta(days=30), timedelta(days=7), timedelta(hours=1)


def moments(not_before: datetime, not_after: datetime) -> tuple[datetime, ...]:
    """
    When to speak of a CA's end, the earliest first; the last of them is the end itself.

    Warnings come when a quarter of the validity is left (30 days at most), a tenth (7 days at most), and an hour, if
    that is less.
    """
    life = not_after - not_before
    tenth = min(life / 10, _WEEK)
    ahead = (min(life / 4, _MONTH), tenth, *([_HOUR] if tenth > _HOUR else []), timedelta(0))
    return tuple(not_after - left for left in ahead)


def passed(not_before: datetime, not_after: datetime, now: datetime) -> int:
    """How many of the `moments` are over: 0 for none, all of them once the CA has ended."""
    return sum(moment <= now for moment in moments(not_before, not_after))
