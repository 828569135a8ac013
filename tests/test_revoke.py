import time
from ipaddress import ip_address

import pytest

from sidecar.events.model import Event
from sidecar.hosts import Authority, parse_host
from sidecar.ledger import ConnectionRecord, Ledger, RequestRecord
from sidecar.policy import Policy, Verdict, judge_name, judge_request, judge_tcp, parse_policy
from sidecar.problem import Failure
from sidecar.reasons import Reason
from sidecar.revoke import Dialled, renew, revocation

PUBLIC = ip_address("93.184.215.14")
PRIVATE = ip_address("10.1.2.3")


def policy(*rules: str, default: str = "deny", network: str = "") -> Policy:
    lines = "".join(f"  - {rule}\n" for rule in rules)
    return parse_policy(f"version: 1\ndefault: {default}\nrules:\n{lines or '  []'}\n{network}")


class Scene:
    """A ledger with one client connection, and what it has written."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.ledger = Ledger(self.events.append)
        self.connection = self.ledger.connection("c1")

    def request(
        self, host: str = "a.test", method: str = "GET", path: str = "/", *, by: Policy | None = None
    ) -> RequestRecord:
        request = RequestRecord(
            id=f"r{len(self.connection.requests)}",
            host=host,
            port=443,
            scheme="https",
            method=method,
            path=path,
            http_version="HTTP/2.0",
            opened=time.monotonic(),
        )
        self.ledger.open_request(self.connection, request)
        if by is not None:
            decision = judge_request(by, parse_host(host), 443, method, path)
            assert decision.allowed
            self.ledger.allow_request(self.connection, request, decision, by)
            self.connection.clear(decision)
        return request

    def splice(self, by: Policy, protocol: str, host: str = "a.test", port: int = 443) -> None:
        self.connection.authority = Authority(parse_host(host), port)
        judge = judge_tcp if protocol == "tcp" else judge_name
        decision = judge(by, parse_host(host), port)
        assert decision.allowed
        self.connection.name = decision
        self.connection.clear(decision)
        self.ledger.allow_connection(self.connection, decision, by, protocol)


@pytest.mark.parametrize(
    ("method", "path", "rules", "ends"),
    [
        pytest.param("GET", "/a", ['allow: ["a.test"]'], False, id="what is still allowed goes on"),
        pytest.param("GET", "/a", ['allow: ["*.test"]'], False, id="which rule allows it makes no difference"),
        pytest.param("GET", "/a", ['passthrough: ["a.test"]'], False, id="a passthrough rule counts as allow"),
        pytest.param("GET", "/a", [], True, id="without a rule, the default denies it"),
        pytest.param("GET", "/a", ['deny: ["a.test"]', 'allow: ["*.test"]'], True, id="a denial in front of the rule"),
        pytest.param("PUT", "/a", ['{allow: ["a.test"], methods: [GET]}'], True, id="its method is no longer allowed"),
        pytest.param("GET", "/a", ['{allow: ["a.test"], paths: ["/b/**"]}'], True, id="its path is no longer allowed"),
        pytest.param("GET", "/b/c", ['{allow: ["a.test"], paths: ["/b/**"]}'], False, id="its path still is"),
        pytest.param("GET", "/a", ['{allow: ["a.test"], ports: [8443]}'], True, id="its port is no longer allowed"),
        pytest.param("GET", "/a", ['{allow: ["a.test"], protocol: tcp, ports: [443]}'], True, id="only as raw TCP"),
    ],
)  # fmt: skip
def test_a_request_in_flight_is_judged_again(method: str, path: str, rules: list[str], ends: bool) -> None:
    scene = Scene()
    request = scene.request(method=method, path=path, by=policy('allow: ["a.test"]'))

    found = revocation(policy(*rules), scene.connection, [])

    assert [r for r, _ in found.requests] == ([request] if ends else [])
    assert found.ends_something is ends
    assert all(why.reason is Reason.POLICY_CHANGED for _, why in found.requests)


def test_only_what_is_no_longer_allowed_ends() -> None:
    scene = Scene()
    old = policy('allow: ["*.test"]')
    kept, ended = scene.request(path="/a", by=old), scene.request(path="/b", by=old)
    other = scene.request(host="b.test", by=old)

    found = revocation(policy('{deny: ["a.test"], paths: ["/b"]}', 'allow: ["*.test"]'), scene.connection, [])

    assert [request for request, _ in found.requests] == [ended]
    assert found.requests[0][1].detail == "the policy has changed: a.test port 443 is denied by rules[0]"
    assert kept.revoked is other.revoked is None


def test_a_request_that_is_still_being_judged_is_left_to_its_judge() -> None:
    scene = Scene()
    scene.request()

    assert not revocation(policy(), scene.connection, [])


def test_what_is_ending_is_not_ended_twice() -> None:
    scene = Scene()
    request = scene.request(by=policy('allow: ["a.test"]'))
    first = revocation(policy(), scene.connection, [])
    first.mark(scene.connection)

    again = revocation(policy(), scene.connection, [])

    assert not again
    again.mark(scene.connection)
    assert request.revoked is first.requests[0][1]


@pytest.mark.parametrize(
    ("protocol", "rules", "says"),
    [
        pytest.param("passthrough", ['passthrough: ["*.test"]'], None, id="still passed through"),
        pytest.param("passthrough", ['allow: ["a.test"]'], "no longer passed through", id="to be intercepted"),
        pytest.param("passthrough", ['deny: ["a.test"]'], "denied by rules[0]", id="its name is denied"),
        pytest.param("passthrough", [], "denied by default", id="its rule is gone"),
        pytest.param(
            "passthrough", ['{deny: ["a.test"], paths: ["/x"]}', 'passthrough: ["a.test"]'], "no longer passed through",
            id="a denial by path in front, which needs it to be opened",
        ),
        pytest.param("passthrough", ['{allow: ["a.test"], protocol: tcp, ports: [443]}'], None, id="allowed as TCP"),
        pytest.param("tcp", ['{allow: ["*.test"], protocol: tcp, ports: [443]}'], None, id="raw TCP is still allowed"),
        pytest.param("tcp", ['allow: ["a.test"]'], "denied by default", id="raw TCP, and only HTTP is allowed now"),
        pytest.param("tcp", ['{allow: ["a.test"], protocol: tcp, ports: [5432]}'], "denied", id="another port"),
    ],
)  # fmt: skip
def test_a_spliced_connection_is_judged_again(protocol: str, rules: list[str], says: str | None) -> None:
    scene = Scene()
    scene.splice(
        policy('passthrough: ["a.test"]', '{allow: ["a.test"], protocol: tcp, ports: [443]}'),
        protocol,
    )

    why = revocation(policy(*rules), scene.connection, []).connection

    assert (why is None) == (says is None)
    if why is not None and says is not None:
        assert says in why.detail and why.reason is Reason.POLICY_CHANGED


ALLOWED = 'network: {allow_addresses: ["10.0.0.0/8"]}'


@pytest.mark.parametrize(
    ("new", "host", "address", "ends"),
    [
        pytest.param(policy('allow: ["a.test"]', network=ALLOWED), "a.test", PRIVATE, False, id="still excepted"),
        pytest.param(policy('allow: ["a.test"]'), "a.test", PRIVATE, True, id="a private address, no longer excepted"),
        pytest.param(policy('allow: ["a.test"]'), "a.test", PUBLIC, False, id="a public address needs no exception"),
        pytest.param(policy('allow: ["10.1.2.3"]'), "10.1.2.3", PRIVATE, False, id="the rule itself names the address"),
        pytest.param(policy('allow: ["a.test"]'), "a.test", None, False, id="the address of an upstream proxy"),
    ],
)
def test_the_address_that_was_dialled_is_judged_again(new: Policy, host: str, address: object, ends: bool) -> None:
    scene = Scene()
    scene.request(host=host, by=policy(f'allow: ["{host}"]', network=ALLOWED))
    dialled = Dialled(host, 443, address)  # type: ignore[arg-type]

    found = revocation(new, scene.connection, [dialled])

    assert bool(found.requests) is ends
    assert found.upstreams == (frozenset([dialled]) if ends else frozenset())


def test_the_address_of_a_spliced_connection_is_judged_again() -> None:
    scene = Scene()
    scene.splice(policy('passthrough: ["a.test"]', network=ALLOWED), "passthrough")

    found = revocation(policy('passthrough: ["a.test"]'), scene.connection, [Dialled("a.test", 443, PRIVATE)])

    assert found.connection is not None
    assert "a.test leads to 10.1.2.3, which is private" in found.connection.detail


def test_an_idle_upstream_of_a_denied_host_is_closed_without_notice() -> None:
    scene = Scene()
    idle, kept = Dialled("a.test", 443, PUBLIC), Dialled("b.test", 443, PUBLIC)

    found = revocation(policy('allow: ["b.test"]'), scene.connection, [idle, kept])

    assert found and not found.ends_something
    assert found.upstreams == frozenset([idle])


def test_the_name_is_judged_anew_for_what_is_still_to_come() -> None:
    connection = ConnectionRecord(id="c1", opened=0)
    old = policy('passthrough: ["a.test"]', 'allow: ["b.test"]', '{allow: ["10.1.2.3"]}')
    connection.name = judge_name(old, parse_host("a.test"), 443)
    for host in ("a.test", "b.test", "10.1.2.3"):
        connection.clear(judge_name(old, parse_host(host), 443))

    renew(policy('allow: ["a.test", "10.1.2.0/24"]'), connection)

    assert connection.name.verdict is Verdict.ALLOW
    assert list(connection.cleared) == [("a.test", 443), ("10.1.2.3", 443)], "b.test may not be dialled any more"
    assert [str(network) for network in connection.cleared["10.1.2.3", 443]] == ["10.1.2.0/24"]


@pytest.mark.parametrize(
    "end",
    [
        pytest.param(lambda s, r: s.ledger.close_request(s.connection, r, 200), id="as if it had ended in order"),
        pytest.param(
            lambda s, r: s.ledger.fail_request(s.connection, r, Failure(Reason.UPSTREAM_DISCONNECTED, "closed")),
            id="as if the upstream had gone",
        ),
        pytest.param(lambda s, r: s.ledger.disconnect("c1"), id="as if the client had gone"),
    ],
)
def test_a_request_that_was_revoked_ends_as_such_however_that_shows(end: object) -> None:
    scene = Scene()
    request = scene.request(by=policy('allow: ["a.test"]'))
    revocation(policy(), scene.connection, []).mark(scene.connection)

    end(scene, request)  # type: ignore[operator]
    scene.ledger.disconnect("c1")

    last = scene.events[-1]
    assert (last.name, last.reason) == ("request_failed", Reason.POLICY_CHANGED)  # type: ignore[attr-defined]
    assert [event.name for event in scene.events].count("request_failed") == 1


def test_a_spliced_connection_that_was_revoked_ends_as_such() -> None:
    scene = Scene()
    scene.splice(policy('passthrough: ["a.test"]'), "passthrough")
    revocation(policy(), scene.connection, []).mark(scene.connection)

    scene.ledger.disconnect("c1")

    assert (scene.events[-1].name, scene.events[-1].reason) == ("connection_closed", Reason.POLICY_CHANGED)  # type: ignore[attr-defined]
