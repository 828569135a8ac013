"""When a CA's end is told: from its validity alone."""

from datetime import timedelta

import pytest

from sidecar.pki.expiry import moments, passed
from tests.pki.authorities import DAY, NOW

HOUR = timedelta(hours=1)
MINUTE = timedelta(minutes=1)


@pytest.mark.parametrize(
    ("life", "left"),
    [
        pytest.param(26 * HOUR, [6.5 * HOUR, 2.6 * HOUR, HOUR], id="a session CA of a day"),
        pytest.param(90 * DAY, [22.5 * DAY, 7 * DAY, HOUR], id="an intermediate of 90 days: a tenth is a week at most"),
        pytest.param(3650 * DAY, [30 * DAY, 7 * DAY, HOUR], id="ten years: a quarter is 30 days at most"),
        pytest.param(2 * HOUR, [30 * MINUTE, 12 * MINUTE], id="two hours: the last hour is no news"),
    ],
)
def test_warnings_come_ahead_and_the_end_is_last(life: timedelta, left: list[timedelta]) -> None:
    assert [NOW + life - moment for moment in moments(NOW, NOW + life)] == [*left, timedelta(0)]


@pytest.mark.parametrize(
    ("left", "count"),
    [(25 * HOUR, 0), (6.5 * HOUR, 1), (2 * HOUR, 2), (HOUR / 2, 3), (timedelta(0), 4), (-DAY, 4)],
)
def test_moments_that_are_over_are_counted(left: timedelta, count: int) -> None:
    assert passed(NOW, NOW + 26 * HOUR, NOW + 26 * HOUR - left) == count
