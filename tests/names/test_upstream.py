import asyncio
import secrets
from collections.abc import Coroutine
from ipaddress import ip_address
from typing import Any

import pytest
import uvloop
from mitmproxy import dns
from mitmproxy.net.dns import response_codes

from sidecar.names.answers import real_addresses
from sidecar.names.records import Question, Rcode, Type
from sidecar.names.upstream import Server, Upstream, UpstreamSilent
from tests.names.stub import stub_resolver, table

ASKED = Question("a.test", Type.A)
ADDRESS = ip_address("192.0.2.1")
RECORD = dns.ResourceRecord.A("a.test", ADDRESS)  # type: ignore[arg-type]
ANSWER = table({("a.test", Type.A): [RECORD]})


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Any:
    def in_loop(scene: Coroutine[Any, Any, None]) -> None:
        with asyncio.Runner(loop_factory=request.param) as runner:
            runner.run(scene)

    return in_loop


def test_an_answer_comes_over_udp(run: Any) -> None:
    async def scene() -> None:
        async with stub_resolver(ANSWER) as stub:
            message = await Upstream([stub.server]).ask(ASKED)
        assert real_addresses(message, ASKED)[0] == [ADDRESS]
        assert stub.asked == [("a.test", Type.A, "udp")]

    run(scene())


def test_a_truncated_answer_is_asked_for_again_over_tcp(run: Any) -> None:
    def truncating(query: dns.DNSMessage, transport: str) -> dns.DNSMessage:
        reply = query.succeed([RECORD] * (1 if transport == "udp" else 300))
        reply.truncation = transport == "udp"
        return reply

    async def scene() -> None:
        async with stub_resolver(truncating) as stub:
            message = await Upstream([stub.server]).ask(ASKED)
        assert len(message.answers) == 300
        assert [transport for _, _, transport in stub.asked] == ["udp", "tcp"]

    run(scene())


def test_answers_to_something_else_do_not_count(run: Any) -> None:
    def lying(query: dns.DNSMessage, _transport: str) -> dns.DNSMessage:
        reply = query.succeed([RECORD])
        match len(stubs[0].asked):
            case 1:
                reply.id ^= 1
            case 2:
                reply.questions = [dns.Question("b.test", Type.A, 1)]
            case 3:
                reply.query = True
        return reply

    stubs = []

    async def scene() -> None:
        async with stub_resolver(lying) as stub:
            stubs.append(stub)
            upstream = Upstream([stub.server], timeout_s=0.2)
            for _ in range(3):
                with pytest.raises(UpstreamSilent):
                    await upstream.ask(ASKED)
            assert (await upstream.ask(ASKED)).answers

    run(scene())


@pytest.mark.parametrize("broken", [b"", b"no", secrets.token_bytes(40)], ids=["empty", "short", "random"])
def test_garbage_is_no_answer_and_the_next_resolver_is_asked(run: Any, broken: bytes) -> None:
    async def scene() -> None:
        async with stub_resolver(lambda q, _: q.packed[:2] + broken) as bad, stub_resolver(ANSWER) as good:
            message = await Upstream([bad.server, good.server], timeout_s=0.3).ask(ASKED)
        assert real_addresses(message, ASKED)[0] == [ADDRESS]

    run(scene())


def test_the_next_resolver_is_asked_where_one_fails_or_is_silent(run: Any) -> None:
    async def scene() -> None:
        async with (
            stub_resolver(lambda query, _: query.fail(response_codes.SERVFAIL)) as failing,
            stub_resolver(lambda _query, _: None) as silent,
            stub_resolver(ANSWER) as good,
        ):
            servers = [failing.server, silent.server]
            message = await Upstream([*servers, good.server], timeout_s=0.2).ask(ASKED)
            assert real_addresses(message, ASKED)[0] == [ADDRESS]
            assert (await Upstream(servers, timeout_s=0.2).ask(ASKED)).rcode == Rcode.SERVFAIL

    run(scene())


def test_nobody_there_is_an_error_that_says_who_was_asked(run: Any) -> None:
    async def scene() -> None:
        async with stub_resolver(ANSWER) as stub:
            gone = stub.server
        with pytest.raises(UpstreamSilent, match=r"127\.0\.0\.1: "):
            await Upstream([gone], timeout_s=0.5).ask(ASKED)
        with pytest.raises(UpstreamSilent, match="none is configured"):
            await Upstream([]).ask(ASKED)

    run(scene())


def test_names_that_cannot_be_asked_for_are_no_answer(run: Any) -> None:
    async def scene() -> None:
        with pytest.raises(UpstreamSilent, match="too long"):
            await Upstream([Server(ADDRESS)]).ask(Question("a" * 64, Type.A))

    run(scene())
