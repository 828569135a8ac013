"""What is dialled: only what a verdict has cleared, only addresses that were checked, each name resolved once."""

import asyncio
from collections.abc import Callable, Coroutine
from ipaddress import ip_address
from typing import Any

import pytest
from mitmproxy.connection import Server
from mitmproxy.proxy.server_hooks import ServerConnectionHookData
from mitmproxy.test import tflow

from addons.dial import Refused, guard_dials
from addons.upstream import Upstream, system_resolver
from sidecar.hosts import IPAddress, parse_host
from sidecar.ledger import Ledger
from sidecar.policy import judge_request, parse_policy
from sidecar.reasons import Reason

PRIVATE_ALLOWED = "version: 1\nrules: [{allow: [up.test]}]\nnetwork: {allow_addresses: [10.0.0.0/8]}"
BY_ADDRESS = "version: 1\nrules: [{allow: ['10.0.0.5']}]"


class Scene:
    """An `Upstream` addon on a loop whose real dial only notes what it was asked for."""

    def __init__(self, answers: list[str], policy: str = "version: 1\nrules: [{allow: [up.test]}]") -> None:
        self.policy = parse_policy(policy)
        self.ledger = Ledger(lambda event: None)
        self.client = tflow.tclient_conn()
        self.dialled: list[tuple[str, int]] = []
        self.resolved: list[str] = []
        self.refusing: set[str] = set()
        self._answers = [ip_address(answer) for answer in answers]
        self.addon = Upstream(lambda: self.policy, self.ledger, self._resolve, lambda context: None)

    async def _resolve(self, host: str, port: int) -> list[IPAddress]:
        self.resolved.append(host)
        return self._answers

    def clear(self, host: str, port: int = 443) -> None:
        decision = judge_request(self.policy, parse_host(host), port, "GET", "/")
        self.ledger.connection(self.client.id).clear(decision)

    async def connect(self, host: str, port: int = 443) -> Server:
        """As mitmproxy does: the hook, then, in the same task, the dial by name."""
        server = Server(address=(host, port))
        pending = self.addon.server_connect(ServerConnectionHookData(server=server, client=self.client))
        if pending is not None:
            await pending
        if server.error is None:
            await asyncio.get_running_loop().create_connection(asyncio.Protocol, host, port)
        return server

    def run[T](self, scene: Callable[[], Coroutine[Any, Any, T]]) -> T:
        async def main() -> T:
            loop = asyncio.get_running_loop()

            async def note(factory: Any, host: Any = None, port: Any = None, **options: Any) -> tuple[None, None]:
                self.dialled.append((host, port))
                if host in self.refusing:
                    raise ConnectionRefusedError(host)
                return None, None

            loop.create_connection = note  # type: ignore[assignment, method-assign]
            guard_dials(loop)
            return await scene()

        return asyncio.run(main())

    def failure(self, host: str, port: int = 443) -> Reason:
        return self.ledger.connection(self.client.id).failures[host, port].reason


def test_a_cleared_name_is_dialled_at_its_checked_address_resolved_once() -> None:
    scene = Scene(["8.8.8.8"])
    scene.clear("up.test")

    server = scene.run(lambda: scene.connect("up.test"))

    assert server.error is None
    assert server.address == ("up.test", 443)
    assert scene.dialled == [("8.8.8.8", 443)]
    assert scene.resolved == ["up.test"]


@pytest.mark.parametrize(
    ("host", "port"), [("other.test", 443), ("up.test", 8443)], ids=["another name", "another port"]
)
def test_what_no_verdict_has_cleared_is_not_even_resolved(host: str, port: int) -> None:
    scene = Scene(["8.8.8.8"])
    scene.clear("up.test")

    server = scene.run(lambda: scene.connect(host, port))

    assert server.error is not None
    assert scene.dialled == []
    assert scene.resolved == []


def test_a_dial_that_no_hook_has_checked_is_refused() -> None:
    scene = Scene(["8.8.8.8"])

    async def dial_unchecked() -> None:
        await asyncio.get_running_loop().create_connection(asyncio.Protocol, "up.test", 443)

    with pytest.raises(Refused, match="was not judged"):
        scene.run(dial_unchecked)
    assert scene.dialled == []


def test_one_tasks_check_is_no_other_tasks_leave() -> None:
    scene = Scene(["8.8.8.8"])
    scene.clear("up.test")

    async def other() -> None:
        await asyncio.get_running_loop().create_connection(asyncio.Protocol, "up.test", 443)

    async def both() -> BaseException | None:
        rival = asyncio.create_task(other())
        await scene.connect("up.test")
        return (await asyncio.gather(rival, return_exceptions=True))[0]

    assert isinstance(scene.run(both), Refused)


def test_a_check_for_one_name_is_no_leave_for_another() -> None:
    scene = Scene(["8.8.8.8"])
    scene.clear("up.test")

    async def swap() -> None:
        await scene.connect("up.test")
        await asyncio.get_running_loop().create_connection(asyncio.Protocol, "evil.test", 443)

    with pytest.raises(Refused):
        scene.run(swap)


@pytest.mark.parametrize(
    "answers",
    [
        pytest.param(["10.0.0.5"], id="private"),
        pytest.param(["127.0.0.1"], id="loopback"),
        pytest.param(["169.254.169.254"], id="metadata"),
        pytest.param(["::ffff:10.0.0.5"], id="private, embedded in IPv6"),
        pytest.param(["198.18.0.7"], id="one of our own synthetic addresses"),
        pytest.param(["8.8.8.8", "10.0.0.5"], id="a public one and a private one"),
        pytest.param(["10.0.0.5", "8.8.8.8"], id="a private one and a public one"),
    ],
)
def test_a_name_that_leads_inside_is_refused(answers: list[str]) -> None:
    scene = Scene(answers)
    scene.clear("up.test")

    server = scene.run(lambda: scene.connect("up.test"))

    assert server.error is not None
    assert scene.dialled == []
    assert scene.failure("up.test") is Reason.PRIVATE_ADDRESS


def test_the_operators_exception_opens_its_network() -> None:
    scene = Scene(["10.0.0.5"], PRIVATE_ALLOWED)
    scene.clear("up.test")

    scene.run(lambda: scene.connect("up.test"))

    assert scene.dialled == [("10.0.0.5", 443)]


def test_an_address_rule_counts_for_a_destination_given_as_that_address() -> None:
    scene = Scene([], BY_ADDRESS)
    scene.clear("10.0.0.5")

    scene.run(lambda: scene.connect("10.0.0.5"))

    assert scene.dialled == [("10.0.0.5", 443)]
    assert scene.resolved == []


def test_an_address_rule_does_not_count_for_a_name_that_leads_there() -> None:
    scene = Scene(["10.0.0.5"], "version: 1\nrules: [{allow: ['10.0.0.5', up.test]}]")
    scene.clear("up.test")

    scene.run(lambda: scene.connect("up.test"))

    assert scene.dialled == []


def test_a_default_of_allow_opens_no_private_address() -> None:
    scene = Scene([], "version: 1\ndefault: allow")
    scene.clear("10.0.0.5")

    scene.run(lambda: scene.connect("10.0.0.5"))

    assert scene.dialled == []


def test_the_next_address_is_tried_and_the_name_not_asked_again() -> None:
    scene = Scene(["8.8.8.8", "8.8.4.4"])
    scene.refusing = {"8.8.8.8"}
    scene.clear("up.test")

    scene.run(lambda: scene.connect("up.test"))

    assert scene.dialled == [("8.8.8.8", 443), ("8.8.4.4", 443)]
    assert scene.resolved == ["up.test"]


def test_a_name_without_an_address_is_said_to_have_none() -> None:
    scene = Scene([])
    scene.clear("up.test")

    server = scene.run(lambda: scene.connect("up.test"))

    assert server.error == "up.test has no address"
    assert scene.failure("up.test") is Reason.UPSTREAM_UNRESOLVED


def test_udp_is_never_dialled() -> None:
    scene = Scene(["8.8.8.8"])
    scene.clear("up.test")

    async def udp() -> Server:
        server = Server(address=("up.test", 443), transport_protocol="udp")
        pending = scene.addon.server_connect(ServerConnectionHookData(server=server, client=scene.client))
        assert pending is not None
        await pending
        return server

    assert scene.run(udp).error is not None
    assert scene.resolved == []


@pytest.mark.parametrize(
    ("port", "address"),
    [
        pytest.param(443, "192.0.2.1", id="by name and port"),
        pytest.param(80, "192.0.2.2", id="by name alone"),
    ],
)
def test_a_pinned_name_is_not_looked_up(port: int, address: str) -> None:
    pinned = {("up.test", 443): ip_address("192.0.2.1"), ("up.test", None): ip_address("192.0.2.2")}

    assert asyncio.run(_all(system_resolver(pinned)("up.test", port))) == [ip_address(address)]


async def _all(pending: Any) -> Any:
    return await pending
