from dataclasses import replace
from ipaddress import IPv4Network, IPv6Network, ip_address

import pytest

from sidecar.names.channel import Channel, Limits
from sidecar.names.desk import Ask, Desk, Reply
from sidecar.names.handed_out import HandedOut
from sidecar.names.outcomes import DnsReason
from sidecar.names.questions import Zone
from sidecar.names.records import Question, Rcode, Record, Type
from sidecar.names.synthetic import SyntheticNames
from sidecar.names.wire import Message, encode_name
from tests.names.rules import Table

RULES = Table(
    allowed=frozenset({"real.test", "typed.test", "db.cluster.local"} | {f"n{n}.real.test" for n in range(9)}),
    real_names=frozenset({"real.test"} | {f"n{n}.real.test" for n in range(9)}),
    typed={"typed.test": frozenset({Type.TXT, Type.HTTPS})},
    exact=frozenset({"db.cluster.local"}),
)
ZONE = Zone(search=("cluster.local",), ttl_s=60, longest_ttl_s=300)
NOTHING = Message(0, True, False, Rcode.NOERROR, None, ())


class Scene:
    def __init__(self, *, capacity: int = 100, zone: Zone = ZONE, limits: Limits | None = None) -> None:
        limits = limits or Limits()
        self.synthetic = SyntheticNames(bytes(32), IPv4Network("198.18.0.0/15"), IPv6Network("fd00::/64"), capacity)
        self.handed_out = HandedOut()
        self.desk = Desk(
            lambda: RULES,
            zone,
            self.synthetic,
            self.handed_out,
            leaving=Channel(limits),
            filling=Channel(replace(limits, names_per_suffix=0)),
        )

    def reply(self, name: str, type_: int) -> Reply:
        served = self.desk.ask(Question(name, type_), now=0)
        assert isinstance(served, Reply)
        return served

    def ask(self, name: str, type_: int) -> Ask:
        served = self.desk.ask(Question(name, type_), now=0)
        assert isinstance(served, Ask)
        return served


def test_a_and_aaaa_of_a_name_are_its_pair_and_lead_back_to_it() -> None:
    scene = Scene()

    [v4] = scene.reply("Outside.test", Type.A).records
    [v6] = scene.reply("outside.test", Type.AAAA).records

    pair = scene.synthetic.pair_of("outside.test")
    assert pair is not None
    assert v4 == Record("Outside.test", Type.A, 60, pair.v4.packed)
    assert v6.data == pair.v6.packed
    for address in (pair.v4, pair.v6):
        [pointer] = scene.reply(address.reverse_pointer, Type.PTR).records
        assert pointer.data == encode_name("outside.test")


def test_a_full_range_is_servfail_and_an_event() -> None:
    scene = Scene(capacity=1)
    scene.reply("a.test", Type.A)
    assert scene.reply("b.test", Type.A) == Reply(Rcode.SERVFAIL, denied=DnsReason.RANGE_FULL)
    assert scene.reply("a.test", Type.A).rcode is Rcode.NOERROR


def test_names_that_would_fill_the_range_are_refused_and_known_ones_are_not() -> None:
    scene = Scene(limits=Limits(burst=3, refill_per_s=0))
    replies = [scene.reply(f"n{n}.t.test", Type.A) for n in range(4)]
    assert [reply.denied for reply in replies] == [None, None, None, DnsReason.MANY_NAMES]
    assert replies[3].rcode is Rcode.REFUSED
    assert scene.reply("n0.t.test", Type.AAAA).rcode is Rcode.NOERROR


def test_localhost_is_loopback() -> None:
    scene = Scene()
    assert scene.reply("localhost", Type.A).records[0].data == bytes([127, 0, 0, 1])
    assert scene.reply("localhost", Type.AAAA).records[0].data == bytes(15) + b"\x01"
    assert scene.reply("1.0.0.127.in-addr.arpa", Type.PTR).records[0].data == encode_name("localhost")


def test_any_is_answered_with_hinfo() -> None:
    [record] = Scene().reply("outside.test", Type.ANY).records
    assert (record.type, record.data) == (Type.HINFO, b"\x07RFC8482\x00")


@pytest.mark.parametrize("address", ["198.18.0.9", "192.0.2.1", "fd00::9"])
def test_ptr_of_what_was_not_handed_out_does_not_exist(address: str) -> None:
    assert Scene().reply(ip_address(address).reverse_pointer, Type.PTR) == Reply(Rcode.NXDOMAIN)


class TestReal:
    ANSWER = replace(
        NOTHING,
        answers=(
            Record("real.test", Type.CNAME, 100, encode_name("cdn.test")),
            Record("cdn.test", Type.A, 900, ip_address("192.0.2.1").packed),
            Record("cdn.test", Type.A, 900, ip_address("198.18.0.5").packed),
        ),
    )

    def test_addresses_are_passed_on_and_remembered_but_never_one_of_our_own(self) -> None:
        scene = Scene()
        ask = scene.ask("Real.test", Type.A)

        reply = scene.desk.receive(ask, (self.ANSWER,), now=0)

        assert ask.queries == (Question("real.test", Type.A),)
        assert reply == Reply(Rcode.NOERROR, (Record("Real.test", Type.A, 100, ip_address("192.0.2.1").packed),))
        assert scene.handed_out.names_of(ip_address("192.0.2.1"), now=1) == ("real.test",)
        assert scene.handed_out.names_of(ip_address("198.18.0.5"), now=1) == ()
        [pointer] = scene.reply("1.2.0.192.in-addr.arpa", Type.PTR).records
        assert pointer.data == encode_name("real.test")

    @pytest.mark.parametrize(
        ("said", "told"),
        [
            pytest.param(Rcode.NXDOMAIN, Rcode.NXDOMAIN, id="no such name"),
            pytest.param(Rcode.NOERROR, Rcode.NOERROR, id="no such record"),
            pytest.param(Rcode.REFUSED, Rcode.SERVFAIL, id="upstream's own refusal isn't ours"),
        ],
    )
    def test_rcodes(self, said: Rcode, told: Rcode) -> None:
        scene = Scene()
        reply = scene.desk.receive(scene.ask("real.test", Type.A), (replace(NOTHING, rcode=said),), now=0)
        assert reply == Reply(told)

    def test_many_names_under_one_suffix_are_not_asked_for(self) -> None:
        scene = Scene(limits=Limits(burst=2, refill_per_s=0))
        served = [scene.desk.ask(Question(f"n{n}.real.test", Type.A), now=0) for n in range(3)]
        assert [isinstance(one, Ask) for one in served] == [True, True, False]
        assert served[2] == Reply(Rcode.REFUSED, denied=DnsReason.MANY_NAMES)


class TestIfExists:
    NO = replace(NOTHING, rcode=Rcode.NXDOMAIN)
    HERE = replace(NOTHING, answers=(Record("db.cluster.local", Type.A, 5, bytes([10, 0, 0, 1])),))

    @pytest.mark.parametrize(
        ("a", "aaaa", "rcode", "records"),
        [
            pytest.param(HERE, NOTHING, Rcode.NOERROR, 1, id="an IPv4 address is enough"),
            pytest.param(HERE, NO, Rcode.NOERROR, 1, id="whatever is said of the other family"),
            pytest.param(NO, NO, Rcode.NXDOMAIN, 0, id="no such name"),
            pytest.param(NOTHING, NOTHING, Rcode.NOERROR, 0, id="a name without addresses"),
            pytest.param(replace(NOTHING, rcode=Rcode.SERVFAIL), NOTHING, Rcode.SERVFAIL, 0, id="nobody knows"),
        ],
    )
    def test_what_is_told(self, a: Message, aaaa: Message, rcode: Rcode, records: int) -> None:
        scene = Scene()
        ask = scene.ask("db.cluster.local", Type.AAAA)
        reply = scene.desk.receive(ask, (a, aaaa), now=0)
        assert [query.type for query in ask.queries] == [Type.A, Type.AAAA]
        assert (reply.rcode, len(reply.records)) == (rcode, records)
        assert len(scene.synthetic) == records

    def test_the_missing_family_is_empty_not_nxdomain(self) -> None:
        scene = Scene(zone=Zone(ZONE.search, frozenset({4})))
        ask = scene.ask("db.cluster.local", Type.AAAA)
        assert scene.desk.receive(ask, (self.HERE, NOTHING), now=0) == Reply(Rcode.NOERROR)

    def test_a_refused_local_name_is_nxdomain_so_that_the_search_goes_on(self) -> None:
        scene = Scene(limits=Limits(burst=0))
        assert scene.reply("db.cluster.local", Type.A) == Reply(Rcode.NXDOMAIN, denied=DnsReason.MANY_NAMES)


def test_other_types_are_passed_on_with_their_aliases_and_nothing_else() -> None:
    scene = Scene()
    kept = (Record("typed.test", Type.CNAME, 9, encode_name("b.test")), Record("b.test", Type.TXT, 9, b"\x02hi"))
    answer = replace(NOTHING, answers=(*kept, Record("b.test", Type.MX, 9, b"\x00\x01\x00")))
    assert scene.desk.receive(scene.ask("typed.test", Type.TXT), (answer,), now=0) == Reply(Rcode.NOERROR, kept)


def test_service_records_lose_their_ech() -> None:
    scene = Scene()
    data = b"\x00\x01\x00" + b"\x00\x05\x00\x03ech"
    answer = replace(NOTHING, answers=(Record("typed.test", Type.HTTPS, 9, data),))
    [record] = scene.desk.receive(scene.ask("typed.test", Type.HTTPS), (answer,), now=0).records
    assert record.data == b"\x00\x01\x00"
