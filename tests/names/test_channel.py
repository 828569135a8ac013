import base64
import hashlib

import pytest

from sidecar.names.channel import Channel, Limits, Throttle, suffix_of, suspicion
from sidecar.names.outcomes import DnsReason

LIMITS = Limits(burst=10, refill_per_s=1, suspicious_cost=5)


def encoded(n: int) -> str:
    return base64.b32encode(hashlib.sha256(str(n).encode()).digest()).decode().lower().rstrip("=")[:40]


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        pytest.param("api.github.com", None, id="a plain name"),
        pytest.param("raw.githubusercontent.com", None, id="a long second-level label is the owner's, not data"),
        pytest.param("d111111abcdef8.cloudfront.net", None, id="a CDN's distribution"),
        pytest.param("my-very-long-service-name-production.eu-central-1.elb.amazonaws.com", None, id="long words"),
        pytest.param(f"{encoded(1)}.t.test", DnsReason.RANDOM_NAME, id="base32 in a label"),
        pytest.param(f"{hashlib.sha256(b'1').hexdigest()[:40]}.t.test", DnsReason.RANDOM_NAME, id="hexadecimal"),
        pytest.param(f"{'a' * 48}.t.test", DnsReason.LONG_NAME, id="a long label"),
        pytest.param(f"{'abc.' * 30}t.test", DnsReason.LONG_NAME, id="a long name of short labels"),
    ],
)
def test_suspicion(name: str, reason: DnsReason | None) -> None:
    assert suspicion(name, LIMITS) is reason


@pytest.mark.parametrize(("name", "suffix"), [("a.b.c.test", "c.test"), ("c.test", "c.test"), ("db", "db")])
def test_a_suffix_is_the_last_two_labels(name: str, suffix: str) -> None:
    assert suffix_of(name) == suffix


def test_many_names_under_one_suffix_are_refused_and_other_suffixes_are_not() -> None:
    channel = Channel(LIMITS)
    refused = [channel.refuse(f"n{n}.t.test", now=0) for n in range(12)]
    assert refused == [None] * 10 + [DnsReason.MANY_NAMES] * 2
    assert channel.refuse("n0.other.test", now=0) is None


def test_random_names_are_refused_sooner_than_plain_ones() -> None:
    channel = Channel(LIMITS)
    refused = [channel.refuse(f"{encoded(n)}.t.test", now=0) for n in range(3)]
    assert refused == [None, None, DnsReason.RANDOM_NAME]


def test_a_name_that_was_seen_is_free() -> None:
    channel = Channel(LIMITS)
    for n in range(10):
        channel.refuse(f"n{n}.t.test", now=0)
    assert [channel.refuse("n3.t.test", now=0) for _ in range(50)] == [None] * 50


def test_the_budget_comes_back_with_time_up_to_the_burst() -> None:
    channel = Channel(LIMITS)
    for n in range(10):
        channel.refuse(f"n{n}.t.test", now=0)
    assert channel.refuse("x.t.test", now=0.5) is DnsReason.MANY_NAMES
    assert channel.refuse("x.t.test", now=1.5) is None
    refused = [channel.refuse(f"m{n}.t.test", now=1000) for n in range(12)]
    assert refused.count(None) == 10


def test_the_memory_is_bounded() -> None:
    channel = Channel(Limits(suffixes=3, names_per_suffix=2))
    for n in range(50):
        channel.refuse(f"a.t{n}.test", now=0)
        channel.refuse(f"n{n}.t.test", now=0)
    assert len(channel._suffixes) == 3
    assert max(len(suffix.names) for suffix in channel._suffixes.values()) == 2


def test_events_are_rate_limited_and_what_was_left_out_is_counted_once() -> None:
    throttle = Throttle(burst=2, per_s=1)
    assert [throttle.admit(now=0) for _ in range(5)] == [0, 0, None, None, None]
    assert throttle.admit(now=1) == 3
    assert throttle.admit(now=2) == 0
    assert throttle.admit(now=2) is None
    assert throttle.drain() == 1
    assert throttle.drain() == 0
