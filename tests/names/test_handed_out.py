from ipaddress import ip_address

from sidecar.names.handed_out import HandedOut

ONE, TWO, THREE = (ip_address(f"192.0.2.{n}") for n in (1, 2, 3))


def test_an_address_may_be_several_names_latest_first() -> None:
    handed_out = HandedOut()
    handed_out.remember("a.test", [ONE, TWO], ttl_s=60, now=0)
    handed_out.remember("b.test", [ONE], ttl_s=60, now=1)
    assert handed_out.names_of(ONE, now=2) == ("b.test", "a.test")
    assert handed_out.names_of(TWO, now=2) == ("a.test",)
    assert handed_out.names_of(THREE, now=2) == ()


def test_an_answer_is_forgotten_after_its_ttl_and_the_grace() -> None:
    handed_out = HandedOut(grace_s=100)
    handed_out.remember("a.test", [ONE], ttl_s=60, now=0)
    assert handed_out.names_of(ONE, now=159) == ("a.test",)
    assert handed_out.names_of(ONE, now=160) == ()
    assert len(handed_out) == 0


def test_an_answer_with_a_shorter_ttl_takes_nothing_away() -> None:
    handed_out = HandedOut(grace_s=0)
    handed_out.remember("a.test", [ONE], ttl_s=100, now=0)
    handed_out.remember("a.test", [ONE], ttl_s=1, now=10)
    assert handed_out.names_of(ONE, now=50) == ("a.test",)


def test_it_is_bounded_in_addresses_and_in_names_for_each() -> None:
    handed_out = HandedOut(capacity=2, names_per_address=2)
    for name in ("a.test", "b.test", "c.test"):
        handed_out.remember(name, [ONE], ttl_s=60, now=0)
    assert handed_out.names_of(ONE, now=1) == ("c.test", "b.test")
    handed_out.remember("d.test", [TWO, THREE], ttl_s=60, now=0)
    assert handed_out.names_of(ONE, now=1) == ()
    assert len(handed_out) == 2
