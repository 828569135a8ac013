"""The fence check: which canaries there are, what proves that one was held, and what the sidecar remembers of them."""

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager

import pytest

from sidecar.cli.fence import as_object, as_table
from sidecar.fence.canaries import MOST, SECONDS, Canaries, canary_line, nonce_of
from sidecar.fence.plan import Canary, Kind, Listener, plan
from sidecar.fence.probe import probe
from sidecar.fence.verdict import Did, Observation, Report, Result, Verdict, judge
from sidecar.hosts import parse_authority

NONCE, OTHER = "0123456789abcdef" * 2, "f" * 32
LISTENERS = (
    Listener("explicit", "127.0.0.1:14101"),
    Listener("redirect", "127.0.0.1:14100"),
    Listener("dns", "[::1]:14153"),
    Listener("control", "127.0.0.1:14102"),
    Listener("health", "127.0.0.1:14120"),
)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize(
    ("data", "nonce"),
    [
        pytest.param(canary_line(NONCE), NONCE, id="a canary is one line with 32 digits"),
        pytest.param(canary_line(NONCE)[:-1], None, id="half a line is not yet one"),
        pytest.param(canary_line(NONCE) + b"x", None, id="nothing follows it"),
        pytest.param(b"x" + canary_line(NONCE), None, id="nothing precedes it"),
        pytest.param(canary_line(NONCE.upper()), None, id="digits are in lower case"),
        pytest.param(b"", None, id="no bytes are no canary"),
    ],
)
def test_nonce_of(data: bytes, nonce: str | None) -> None:
    assert nonce_of(data) == nonce


def test_a_nonce_counts_only_if_it_was_announced() -> None:
    canaries = Canaries()
    canaries.announce([NONCE])

    assert not canaries.seen(NONCE)
    assert canaries.arrive(NONCE)
    assert canaries.seen(NONCE)
    assert not canaries.arrive(OTHER), "the workload's own bytes are no canary"
    assert not canaries.seen(OTHER)


def test_nonces_are_forgotten_after_a_while_and_when_there_are_too_many() -> None:
    clock = Clock()
    canaries = Canaries(clock)
    canaries.announce([NONCE])
    canaries.arrive(NONCE)
    clock.now = SECONDS
    assert not canaries.seen(NONCE)

    canaries.announce(f"{number:032x}" for number in range(MOST + 1))
    assert not canaries.arrive(f"{0:032x}")
    assert canaries.arrive(f"{MOST:032x}")


def test_the_plan_covers_every_way_out() -> None:
    canaries = plan(LISTENERS, allowed=[parse_authority("up.test:8443")], links=["eth0", "eth1"])

    assert len({canary.id for canary in canaries}) == len(canaries)
    targets = {(canary.kind, canary.target) for canary in canaries}
    assert targets >= {
        (Kind.TCP, "192.0.2.1:443"),
        (Kind.TCP, "[2001:db8::1]:22"),
        (Kind.TCP, "169.254.169.254:80"),
        (Kind.UDP, "[2001:db8::1]:443"),
        (Kind.UDP, "[fe80::1%eth0]:443"),
        (Kind.ECHO, "192.0.2.1"),
        (Kind.DNS_UDP, "192.0.2.53:53"),
        (Kind.DNS_TCP, "[2001:db8::53]:53"),
        (Kind.OWN_TCP, "127.0.0.1:14100"),
        (Kind.OWN_TCP, "[::1]:14153"),
        (Kind.OWN_UDP, "[::1]:14153"),
        (Kind.OWN_TCP, "127.0.0.1:14102"),
        (Kind.WORKS, "up.test:8443"),
    }
    assert not targets & {(Kind.OWN_TCP, "127.0.0.1:14101"), (Kind.OWN_TCP, "127.0.0.1:14120")}


def test_the_control_port_is_tried_even_where_the_sidecar_has_none() -> None:
    assert "127.0.0.1:14102" in {canary.target for canary in plan(())}


TCP = Canary("tcp", Kind.TCP, "192.0.2.1", 443, "")
TCP6 = Canary("tcp6", Kind.TCP, "2001:db8::1", 443, "")
UDP = Canary("udp", Kind.UDP, "192.0.2.1", 443, "")
ECHO = Canary("echo", Kind.ECHO, "192.0.2.1", 0, "")
DNS = Canary("dns", Kind.DNS_UDP, "192.0.2.53", 53, "")
OWN = Canary("own", Kind.OWN_TCP, "127.0.0.1", 14102, "")
NAME = Canary("name", Kind.NAME, "denied.test", 443, "")
WORKS = Canary("works", Kind.WORKS, "up.test", 443, "")


def failed(name: str) -> Observation:
    return Observation(Did.FAILED, name)


@pytest.mark.parametrize(
    ("canary", "observation", "says", "verdict"),
    [
        pytest.param(TCP, Observation(Did.CONNECTED), "arrived", Verdict.HELD, id="our listener has seen the nonce"),
        pytest.param(TCP, failed("ECONNRESET"), "arrived", Verdict.HELD, id="arrived counts, however it ended"),
        pytest.param(TCP, Observation(Did.CONNECTED), "", Verdict.GOT_THROUGH, id="somebody else has accepted it"),
        pytest.param(TCP, failed("ECONNREFUSED"), "", Verdict.UNPROVEN, id="a reset may come from anywhere"),
        pytest.param(TCP, Observation(Did.TIMEOUT), "", Verdict.UNPROVEN, id="silence is no proof"),
        pytest.param(TCP, failed("ENETUNREACH"), "", Verdict.UNPROVEN, id="no route is no proof where there is IPv4"),
        pytest.param(TCP6, failed("ENETUNREACH"), "", Verdict.SKIPPED, id="no route and no address is no IPv6"),
        pytest.param(TCP6, Observation(Did.TIMEOUT), "", Verdict.UNPROVEN, id="without IPv6 there is no time-out"),
        pytest.param(TCP6, Observation(Did.CONNECTED), "", Verdict.GOT_THROUGH, id="a connection is never skipped"),
        pytest.param(UDP, failed("EPERM"), "", Verdict.HELD, id="the kernel refuses a datagram"),
        pytest.param(UDP, Observation(Did.SENT), "", Verdict.GOT_THROUGH, id="a datagram that is sent is out"),
        pytest.param(UDP, failed("ECONNREFUSED"), "", Verdict.UNPROVEN, id="an ICMP error may come from anywhere"),
        pytest.param(ECHO, failed("EPERM"), "", Verdict.HELD, id="the kernel refuses a ping"),
        pytest.param(ECHO, Observation(Did.REFUSED_HERE), "", Verdict.HELD, id="an ICMP error comes from this machine"),
        pytest.param(ECHO, Observation(Did.SENT), "", Verdict.GOT_THROUGH, id="a ping that is sent is out"),
        pytest.param(ECHO, Observation(Did.NO_SOCKET), "", Verdict.HELD, id="a ping can't be made"),
        pytest.param(UDP, Observation(Did.NO_SOCKET), "", Verdict.UNPROVEN, id="a datagram always can"),
        pytest.param(DNS, Observation(Did.ANSWERED), "", Verdict.HELD, id="our resolver answers for another"),
        pytest.param(DNS, Observation(Did.ANSWERED_BY_OTHER), "", Verdict.GOT_THROUGH, id="another resolver answers"),
        pytest.param(DNS, Observation(Did.TIMEOUT), "", Verdict.UNPROVEN, id="no resolver answers"),
        pytest.param(OWN, failed("ECONNREFUSED"), "listens", Verdict.HELD, id="refused while the sidecar listens"),
        pytest.param(OWN, failed("ECONNREFUSED"), "", Verdict.UNPROVEN, id="refused, but nobody listens"),
        pytest.param(OWN, Observation(Did.CONNECTED), "listens", Verdict.GOT_THROUGH, id="the sidecar's port is open"),
        pytest.param(NAME, Observation(Did.UNRESOLVED), "", Verdict.UNPROVEN, id="a name without address"),
        pytest.param(WORKS, Observation(Did.CONNECTED), "", Verdict.WORKS, id="what is allowed works"),
        pytest.param(WORKS, failed("EPERM"), "", Verdict.BROKEN, id="what is allowed is refused"),
    ],
)
def test_judge(canary: Canary, observation: Observation, says: str, verdict: Verdict) -> None:
    result = judge(canary, observation, arrived=says == "arrived", listening=says == "listens", versions=[4])

    assert result.verdict is verdict


def result(verdict: Verdict) -> Result:
    return Result("c", "192.0.2.1:443", "expected", "seen", verdict)


@pytest.mark.parametrize(
    ("verdicts", "held"),
    [
        pytest.param([Verdict.HELD, Verdict.SKIPPED, Verdict.WORKS], True, id="all are good"),
        pytest.param([Verdict.HELD, Verdict.GOT_THROUGH], False, id="one gets through"),
        pytest.param([Verdict.HELD, Verdict.UNPROVEN], False, id="one is unproven"),
        pytest.param([Verdict.HELD, Verdict.BROKEN], False, id="one should work"),
        pytest.param([Verdict.SKIPPED, Verdict.WORKS], False, id="nothing was held at all"),
        pytest.param([], False, id="nothing was tried"),
    ],
)
def test_a_report_holds_only_if_all_is_proven(verdicts: list[Verdict], held: bool) -> None:
    report = Report(tuple(map(result, verdicts)))

    assert report.held is held
    assert f'"held": {str(held).lower()}' in as_object(report)
    assert as_table(report).row_count == len(verdicts)


@contextmanager
def listener(answer: bytes) -> Iterator[tuple[int, list[bytes]]]:
    """A TCP server on loopback that reads once, answers once and hangs up."""
    heard: list[bytes] = []
    with closing(socket.create_server(("127.0.0.1", 0))) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                heard.append(connection.recv(4096))
                connection.sendall(answer)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield server.getsockname()[1], heard
        thread.join(10)


def test_a_tcp_canary_says_its_nonce_and_waits_for_the_end() -> None:
    with listener(b"whatever") as (port, heard):
        seen = asyncio.run(probe(Canary("c", Kind.TCP, "127.0.0.1", port, ""), NONCE, "n.example"))

    assert seen == Observation(Did.CONNECTED)
    assert heard == [canary_line(NONCE)]


def test_what_must_work_sends_nothing() -> None:
    with listener(b"") as (port, heard):
        seen = asyncio.run(probe(Canary("c", Kind.WORKS, "localhost", port, ""), NONCE, "n.example"))

    assert seen == Observation(Did.CONNECTED)
    assert heard == [b""]


def test_a_refused_connection_is_seen_as_such() -> None:
    with closing(socket.socket()) as bound:
        bound.bind(("127.0.0.1", 0))
        seen = asyncio.run(probe(Canary("c", Kind.TCP, "127.0.0.1", bound.getsockname()[1], ""), NONCE, "n.example"))

    assert seen == Observation(Did.FAILED, "ECONNREFUSED")


def test_any_answer_but_our_resolvers_is_another_resolvers() -> None:
    answer = b"\x00\x0c" + bytes(12)  # a header with nothing behind it
    with listener(answer) as (port, _):
        seen = asyncio.run(probe(Canary("c", Kind.DNS_TCP, "127.0.0.1", port, ""), NONCE, "n.example"))

    assert seen == Observation(Did.ANSWERED_BY_OTHER)


def test_a_datagram_that_leaves_is_seen_as_sent() -> None:
    with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as server:
        server.bind(("127.0.0.1", 0))
        port = server.getsockname()[1]
        seen = asyncio.run(probe(Canary("c", Kind.UDP, "127.0.0.1", port, ""), NONCE, "n.example"))

    assert seen == Observation(Did.SENT)


def test_the_checkers_own_loopback_works() -> None:
    seen = asyncio.run(probe(Canary("c", Kind.LOOPBACK, "127.0.0.1", 0, ""), NONCE, "n.example"))

    assert seen == Observation(Did.CONNECTED)
