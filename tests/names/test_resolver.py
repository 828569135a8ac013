"""The addon in a real mitmproxy, asked over real sockets."""

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network, IPv6Network, ip_address

import pytest
from mitmproxy import ctx, dns, options
from mitmproxy.addons import core, dns_resolver, next_layer, proxyserver
from mitmproxy.master import Master
from mitmproxy.net.dns import domain_names

from addons import bounds
from addons.resolver import Resolver, keep_labels
from sidecar.limits import Limits
from sidecar.names.channel import Throttle
from sidecar.names.desk import Desk
from sidecar.names.handed_out import HandedOut
from sidecar.names.questions import NameRules, Zone
from sidecar.names.records import Question, Rcode, Type
from sidecar.names.synthetic import SyntheticNames
from sidecar.names.upstream import Upstream
from sidecar.names.wire import Message
from tests.names.rules import Table
from tests.names.stub import Stub, stub_resolver, table

RULES = Table(
    allowed=frozenset({"real.test", "db.cluster.local", "gone.cluster.local", "typed.test"}),
    real_names=frozenset({"real.test"}),
    typed={"typed.test": frozenset({Type.TXT})},
    exact=frozenset({"db.cluster.local", "gone.cluster.local"}),
)
REAL = IPv4Address("192.0.2.1")
UPSTREAM = table(
    {
        ("real.test", Type.A): [dns.ResourceRecord.A("real.test", REAL, ttl=77)],
        ("db.cluster.local", Type.A): [dns.ResourceRecord.A("db.cluster.local", IPv4Address("10.0.0.1"))],
        ("typed.test", Type.TXT): [dns.ResourceRecord.TXT("typed.test", "x" * 200) for _ in range(9)],
    }
)


@dataclass
class Scene:
    port: int
    synthetic: SyntheticNames
    upstream: Stub
    ours: Resolver = field(init=False)
    denied: list[tuple[str, str, str, int]] = field(default_factory=list)

    async def udp(self, query: dns.DNSMessage) -> dns.DNSMessage:
        loop = asyncio.get_running_loop()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.setblocking(False)
            await loop.sock_connect(sock, ("127.0.0.1", self.port))
            async with asyncio.timeout(10):
                while True:  # a datagram may be lost, and those who ask by them ask again
                    await loop.sock_sendall(sock, query.packed)
                    with suppress(TimeoutError):
                        async with asyncio.timeout(2):
                            return dns.DNSMessage.unpack(await loop.sock_recv(sock, 65535))

    async def tcp(self, *queries: dns.DNSMessage) -> list[dns.DNSMessage]:
        async with asyncio.timeout(5):
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
            answers = []
            for query in queries:
                writer.write(struct.pack("!H", len(query.packed)) + query.packed)
                (length,) = struct.unpack("!H", await reader.readexactly(2))
                answers.append(dns.DNSMessage.unpack(await reader.readexactly(length)))
            writer.close()
        return answers


def query(name: str, type_: int = Type.A, *, edns: int | None = None, id_: int = 7) -> dns.DNSMessage:
    additionals = [] if edns is None else [dns.ResourceRecord("", Type.OPT, edns, 0, b"")]
    question = dns.Question(name, type_, 1)
    return dns.DNSMessage(id_, True, 0, False, False, True, False, 0, 0, [question], [], [], additionals)


@asynccontextmanager
async def resolver(
    rules: Callable[[], NameRules] = lambda: RULES,
    upstream: Callable[[Question], Awaitable[Message]] | None = None,
) -> AsyncIterator[Scene]:
    async with stub_resolver(UPSTREAM) as stub:
        synthetic = SyntheticNames(bytes(32), IPv4Network("198.18.0.0/15"), IPv6Network("fd00::/64"), 100)
        scene = Scene(0, synthetic, stub)
        desk = Desk(rules, Zone(search=("cluster.local",)), synthetic, HandedOut())
        ours = Resolver(
            desk,
            upstream or Upstream([stub.server]).ask,
            lambda *denied: scene.denied.append(denied),
            throttle=Throttle(burst=2, per_s=0),
        )
        scene.ours = ours
        master = Master(options.Options(mode=["dns@127.0.0.1:0"]))
        server = proxyserver.Proxyserver()
        # The stock resolver comes first here, as it does under mitmdump: ours has to take it away.
        master.addons.add(core.Core(), dns_resolver.DnsResolver(), server, next_layer.NextLayer(), ours)
        running = asyncio.create_task(master.run())
        async with asyncio.timeout(5):
            while not (scene.port and server.is_running):
                await asyncio.sleep(0.01)
                ports = {address[1] for instance in server.servers for address in instance.listen_addrs}
                scene.port = ports.pop() if len(ports) == 1 else 0
        try:
            yield scene
        finally:
            master.shutdown()
            await running


def addresses(message: dns.DNSMessage) -> list[str]:
    return [str(ip_address(record.data)) for record in message.answers]


@pytest.mark.live
def test_questions_over_udp() -> None:
    async def scene_() -> None:
        async with resolver() as scene:
            outside = await scene.udp(query("Outside.Test"))
            real = await scene.udp(query("real.test"))
            exists = await scene.udp(query("db.cluster.local", Type.AAAA))
            gone = await scene.udp(query("gone.cluster.local"))
            expanded = await scene.udp(query("outside.test.cluster.local"))

            pair = scene.synthetic.pair_of("outside.test")
            assert pair is not None
            assert addresses(outside) == [str(pair.v4)]
            assert (outside.id, outside.question) == (7, dns.Question("Outside.Test", Type.A, 1))
            assert addresses(real) == [str(REAL)]
            assert real.answers[0].ttl == 77
            assert scene.synthetic.name_of(ip_address(addresses(exists)[0])) == "db.cluster.local"
            assert (gone.response_code, expanded.response_code) == (Rcode.NXDOMAIN, Rcode.NXDOMAIN)
            assert {name for name, _, _ in scene.upstream.asked} == {
                "real.test",
                "db.cluster.local",
                "gone.cluster.local",
            }
            assert scene.denied == []

    asyncio.run(scene_())


@pytest.mark.live
def test_one_message_id_twice_on_a_connection_gets_each_its_own_answer() -> None:
    async def scene_() -> None:
        async with resolver() as scene:
            first, second = await scene.tcp(query("one.test"), query("two.test"))
            assert (first.questions[0].name, second.questions[0].name) == ("one.test", "two.test")
            assert addresses(first) != addresses(second)
            assert scene.synthetic.name_of(ip_address(addresses(second)[0])) == "two.test"

    asyncio.run(scene_())


@pytest.mark.live
def test_an_answer_too_large_for_the_clients_buffer_is_cut_off_and_whole_over_tcp() -> None:
    async def scene_() -> None:
        async with resolver() as scene:
            small = await scene.udp(query("typed.test", Type.TXT))
            large = await scene.udp(query("typed.test", Type.TXT, edns=4096))
            [whole] = await scene.tcp(query("typed.test", Type.TXT))

            assert (small.truncation, len(small.answers), small.additionals) == (True, 0, [])
            assert (large.truncation, len(large.answers)) == (False, 9)
            assert [record.type for record in large.additionals] == [Type.OPT]
            assert (whole.truncation, len(whole.answers)) == (False, 9)

    asyncio.run(scene_())


@pytest.mark.live
def test_refusals_are_told_and_rate_limited() -> None:
    async def scene_() -> None:
        async with resolver() as scene:
            answers = [await scene.udp(query("tunnel.test", Type.TXT)) for _ in range(5)]
            assert {(answer.response_code, len(answer.answers)) for answer in answers} == {(Rcode.NOERROR, 0)}
            assert scene.denied == [("tunnel.test", "TXT", "dns_type", 0)] * 2
            assert scene.upstream.asked == []

    asyncio.run(scene_())


@pytest.mark.live
def test_names_that_only_idna_2008_knows_are_answered() -> None:
    async def scene_() -> None:
        async with resolver() as scene:
            assert len((await scene.udp(query("xn--fa-hia.de"))).answers) == 1
            assert scene.synthetic.pair_of("xn--fa-hia.de") is not None

    asyncio.run(scene_())


def test_a_pointer_to_the_root_adds_no_label() -> None:
    keep_labels()

    assert domain_names.unpack_from_with_compression(b"\0\1x\xc0\0", 1, domain_names.cache()) == ("x", 4)


@pytest.mark.live
@pytest.mark.parametrize("name", ["outside.test", "real.test"], ids=["in the policy", "in the upstream"])
def test_a_defect_is_servfail_and_nothing_is_sent_on(name: str) -> None:
    def no_rules() -> NameRules:
        raise RuntimeError("thrown by a test")

    async def no_upstream(_question: Question) -> Message:
        raise RuntimeError("thrown by a test")

    async def scene_() -> None:
        rules = no_rules if name == "outside.test" else lambda: RULES
        async with resolver(rules, no_upstream) as scene:
            assert (await scene.udp(query(name))).response_code == Rcode.SERVFAIL
            assert scene.denied == [(name, "A", "internal_error", 0)]
            assert scene.upstream.asked == []

    asyncio.run(scene_())


@pytest.mark.live
def test_only_so_many_sockets_that_have_asked_are_kept() -> None:
    async def scene_() -> None:
        bounds.use(Limits(dns_sockets=16))
        async with resolver() as scene, asyncio.timeout(15):  # mitmproxy's own time is 20 s
            proxyserver = ctx.master.addons.get("proxyserver")
            for _ in range(4):
                await asyncio.gather(*(scene.udp(query("outside.test", id_=number)) for number in range(20)))
            while len(proxyserver.connections) > 16:
                await asyncio.sleep(0.01)
            assert len(scene.ours._sockets) == 16

    try:
        asyncio.run(scene_())
    finally:
        bounds.use(Limits())


@pytest.mark.live
def test_questions_beyond_those_that_may_wait_get_servfail_and_the_others_their_answer() -> None:
    answer = asyncio.Event()

    async def slow(question: Question) -> Message:
        await answer.wait()
        async with stub_resolver(UPSTREAM) as stub:
            return await Upstream([stub.server]).ask(question)

    async def scene_() -> None:
        bounds.use(Limits(dns_questions=2))
        async with resolver(upstream=slow) as scene:
            waiting = [asyncio.create_task(scene.udp(query("real.test", id_=number))) for number in range(2)]
            while scene.ours._asking < 2:
                await asyncio.sleep(0.01)
            assert (await scene.udp(query("real.test", id_=9))).response_code == Rcode.SERVFAIL
            assert scene.denied == [("real.test", "A", "overload", 0)]
            assert len((await scene.udp(query("outside.test"))).answers) == 1  # needs no resolver
            answer.set()
            assert [addresses(await one) for one in waiting] == [[str(REAL)]] * 2

    try:
        asyncio.run(scene_())
    finally:
        bounds.use(Limits())


@pytest.mark.live
@pytest.mark.parametrize(
    ("change", "rcode"),
    [
        pytest.param({"op_code": 5}, Rcode.NOTIMP, id="a dynamic update"),
        pytest.param({"questions": []}, Rcode.FORMERR, id="no question"),
        pytest.param({"questions": [dns.Question("a.test", 1, 1)] * 2}, Rcode.FORMERR, id="two questions"),
        pytest.param({"query": False}, Rcode.FORMERR, id="an answer that nobody asked for"),
    ],
)
def test_what_is_no_question_is_not_served(change: dict[str, object], rcode: Rcode) -> None:
    async def scene_() -> None:
        message = query("a.test")
        for attribute, value in change.items():
            setattr(message, attribute, value)
        async with resolver() as scene:
            answer = await scene.udp(message)
            assert (answer.response_code, answer.answers) == (rcode, [])

    asyncio.run(scene_())
