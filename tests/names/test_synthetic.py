from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.names.synthetic import Pair, SyntheticError, SyntheticNames

KEY = bytes(range(32))
V4, V6 = IPv4Network("198.18.0.0/15"), IPv6Network("fd00:1::/64")
SMALL_V4, SMALL_V6 = IPv4Network("198.18.0.0/26"), IPv6Network("fd00:1::/122")

names = st.lists(st.from_regex(r"[a-z]{1,6}\.(com|test)", fullmatch=True), unique=True, max_size=31)


def small(key: bytes = KEY) -> SyntheticNames:
    return SyntheticNames(key, SMALL_V4, SMALL_V6, 31)


@given(names)
@settings(max_examples=60, deadline=None)
def test_no_two_names_share_an_address_and_each_address_leads_back(asked: list[str]) -> None:
    synthetic = small()

    pairs = [synthetic.assign(name) for name in asked]

    assert len({address for pair in pairs if pair for address in (pair.v4, pair.v6)}) == 2 * len(asked)
    for name, pair in zip(asked, pairs, strict=True):
        assert pair is not None
        assert pair.v4 in SMALL_V4 and pair.v6 in SMALL_V6
        assert synthetic.name_of(pair.v4) == synthetic.name_of(pair.v6) == name
        assert synthetic.assign(name) == synthetic.pair_of(name) == pair


@given(names)
@settings(max_examples=30, deadline=None)
def test_the_same_key_gives_the_same_addresses_after_a_restart(asked: list[str]) -> None:
    before, after = small(), small()
    assert [before.assign(name) for name in asked] == [after.assign(name) for name in asked]


def test_without_collisions_the_order_of_names_changes_nothing() -> None:
    asked = ["a.example.com", "b.example.com", "c.example.com"]
    before, after = SyntheticNames(KEY, V4, V6, 100), SyntheticNames(KEY, V4, V6, 100)
    for name in asked:
        before.assign(name)
    for name in reversed(asked):
        after.assign(name)
    assert dict(before) == dict(after)


def test_another_key_gives_other_addresses() -> None:
    assert SyntheticNames(KEY, V4, V6, 9).assign("a.test") != SyntheticNames(KEY[::-1], V4, V6, 9).assign("a.test")


def test_a_full_range_says_so_and_keeps_what_it_has() -> None:
    synthetic = SyntheticNames(KEY, V4, V6, 2)
    first = synthetic.assign("a.test")
    synthetic.assign("b.test")

    assert synthetic.assign("c.test") is None
    assert synthetic.assign("a.test") == first
    assert len(synthetic) == 2


def test_the_first_and_the_last_address_of_a_range_are_never_used() -> None:
    v4, v6 = IPv4Network("198.18.0.0/29"), IPv6Network("fd00::/125")
    used = set()
    for n in range(200):
        synthetic = SyntheticNames(KEY, v4, v6, 3)
        for name in (f"a{n}.test", f"b{n}.test", f"c{n}.test"):
            pair = synthetic.assign(name)
            assert pair is not None
            used |= {pair.v4, pair.v6}
    assert used == set(list(v4)[1:-1]) | set(list(v6)[1:-1])


def test_an_address_in_a_range_that_was_not_assigned_is_no_name() -> None:
    synthetic = SyntheticNames(KEY, V4, V6, 9)
    assert synthetic.name_of(IPv4Address("198.18.0.1")) is None
    assert IPv4Address("198.19.255.255") in synthetic
    assert IPv6Address("fd00:1::1") in synthetic
    assert IPv4Address("192.0.2.1") not in synthetic


class TestAdopt:
    PAIR = Pair(IPv4Address("198.18.0.7"), IPv6Address("fd00:1::7"))

    def test_an_adopted_name_keeps_its_addresses(self) -> None:
        synthetic = SyntheticNames(KEY, V4, V6, 9)
        assert synthetic.adopt("a.test", self.PAIR)
        assert synthetic.assign("a.test") == self.PAIR
        assert synthetic.name_of(self.PAIR.v6) == "a.test"

    @pytest.mark.parametrize(
        ("name", "pair"),
        [
            pytest.param("a.test", Pair(IPv4Address("198.18.0.8"), IPv6Address("fd00:1::8")), id="a name with others"),
            pytest.param("b.test", PAIR, id="addresses that another name has"),
            pytest.param("b.test", Pair(IPv4Address("192.0.2.1"), IPv6Address("fd00:1::8")), id="outside of the range"),
        ],
    )  # fmt: skip
    def test_what_contradicts_is_not_adopted(self, name: str, pair: Pair) -> None:
        synthetic = SyntheticNames(KEY, V4, V6, 9)
        synthetic.adopt("a.test", self.PAIR)
        assert not synthetic.adopt(name, pair)
        assert dict(synthetic) == {"a.test": self.PAIR}


@pytest.mark.parametrize(
    ("key", "capacity", "text"),
    [
        pytest.param(b"short", 9, "5 bytes", id="a short key"),
        pytest.param(KEY, 65536, "1 to 65535", id="more than half of the range"),
        pytest.param(KEY, 0, "0 names", id="no name at all"),
    ],
)
def test_what_cannot_work_is_refused(key: bytes, capacity: int, text: str) -> None:
    with pytest.raises(SyntheticError, match=text):
        SyntheticNames(key, V4, V6, capacity)


class TestRestore:
    @pytest.mark.parametrize("version", [4, 6])
    def test_an_address_that_was_kept_over_a_restart_is_its_names_again(self, version: int) -> None:
        before, after = SyntheticNames(KEY, V4, V6, 9), SyntheticNames(KEY, V4, V6, 9)
        kept = before.assign("a.test")
        assert kept is not None

        assert after.restore("a.test", kept.v4 if version == 4 else kept.v6)
        assert after.name_of(kept.v4) == after.name_of(kept.v6) == "a.test"

    def test_another_name_does_not_get_it(self) -> None:
        before, after = SyntheticNames(KEY, V4, V6, 9), SyntheticNames(KEY, V4, V6, 9)
        kept = before.assign("a.test")
        assert kept is not None

        assert not after.restore("b.test", kept.v4)
        assert len(after) == 0

    def test_a_full_range_takes_no_more(self) -> None:
        before, after = SyntheticNames(KEY, V4, V6, 2), SyntheticNames(KEY, V4, V6, 1)
        kept = before.assign("a.test")
        assert kept is not None
        after.assign("b.test")

        assert not after.restore("a.test", kept.v4)
