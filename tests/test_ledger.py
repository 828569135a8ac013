"""Everything that was opened is closed by one record, on every path."""

import pytest

from sidecar.events.model import Event
from sidecar.hosts import Authority, parse_host
from sidecar.ledger import ConnectionRecord, Ledger, RequestRecord
from sidecar.policy import Policy, judge_request, parse_policy
from sidecar.problem import Failure, Problem
from sidecar.reasons import Reason

POLICY = parse_policy("version: 1\nrules: [{allow: [a.test]}]")
FAILURE = Failure(Reason.UPSTREAM_UNREACHABLE, "down")
DENIAL = Problem(403, Reason.RULE_DENY, "no")
CLOSING = {
    "request_closed",
    "request_denied",
    "request_failed",
    "tls_handshake_failed",
    "connection_denied",
    "connection_closed",
}


class Scene:
    """A ledger with one connection and one request on it."""

    def __init__(self, policy: Policy = POLICY) -> None:
        self.events: list[Event] = []
        self.ledger = Ledger(self.events.append)
        self.connection = self.ledger.connection("c1")
        self.policy = policy

    def request(self, id_: str = "r1", host: str = "a.test") -> RequestRecord:
        request = RequestRecord(
            id=id_, host=host, port=443, scheme="https", method="GET", path="/", http_version="HTTP/1.1", opened=0.0
        )
        self.ledger.open_request(self.connection, request)
        return request

    def allow(self, request: RequestRecord) -> None:
        decision = judge_request(self.policy, parse_host(request.host), request.port, "GET", "/")
        self.ledger.allow_request(self.connection, request, decision, self.policy)

    @property
    def closing(self) -> list[str]:
        return [event.name for event in self.events if event.name in CLOSING]


def test_a_request_is_closed_once_whatever_comes_after() -> None:
    scene = Scene()
    request = scene.request()
    scene.allow(request)

    scene.ledger.close_request(scene.connection, request, 200)
    scene.ledger.fail_request(scene.connection, request, FAILURE)
    scene.ledger.deny_request(scene.connection, request, DENIAL, scene.policy)
    scene.ledger.disconnect("c1")

    assert scene.closing == ["request_closed"]


def test_a_request_in_flight_fails_when_the_client_leaves() -> None:
    scene = Scene()
    scene.allow(scene.request())

    scene.ledger.disconnect("c1")

    assert scene.closing == ["request_failed"]
    assert scene.events[-1].reason is Reason.CLIENT_DISCONNECTED  # type: ignore[attr-defined]


def test_a_request_that_was_never_judged_is_denied_when_the_client_leaves() -> None:
    scene = Scene()
    scene.request()

    scene.ledger.disconnect("c1")

    assert scene.closing == ["request_denied"]


def test_each_request_of_a_connection_has_its_own_record() -> None:
    scene = Scene()
    first, second, third = (scene.request(name) for name in ("r1", "r2", "r3"))
    for request in (first, second, third):
        scene.allow(request)

    scene.ledger.close_request(scene.connection, second, 200)
    scene.ledger.fail_request(scene.connection, first, FAILURE)
    scene.ledger.disconnect("c1")

    assert scene.closing == ["request_closed", "request_failed", "request_failed"]
    assert scene.ledger.open_requests == 0


def test_a_connection_without_requests_is_closed_once() -> None:
    scene = Scene()

    scene.ledger.close_connection(scene.connection)
    scene.ledger.deny_connection(scene.connection, Reason.NOT_HTTP, "late")
    scene.ledger.disconnect("c1")
    scene.ledger.disconnect("c1")

    assert scene.closing == ["connection_closed"]


def test_a_denied_connection_tells_its_first_bytes_but_no_more_than_sixteen() -> None:
    scene = Scene()
    scene.connection.authority = Authority(parse_host("a.test"), 25)

    scene.ledger.deny_connection(scene.connection, Reason.NOT_HTTP, "no", first_bytes=bytes(range(40)))

    [event] = scene.events
    assert event.first_bytes == bytes(range(16)).hex()  # type: ignore[attr-defined]
    assert event.host == "a.test"  # type: ignore[attr-defined]


def test_a_handshake_that_was_completed_but_never_used_is_suspected() -> None:
    scene = Scene()
    scene.connection.tls_established = True

    scene.ledger.disconnect("c1")

    assert scene.closing == ["tls_handshake_failed"]
    assert scene.events[-1].suspected is True  # type: ignore[attr-defined]


def test_a_late_alert_is_no_suspicion() -> None:
    scene = Scene()
    scene.connection.tls_established = True
    scene.connection.alert = "[('SSL routines', '', 'tlsv1 alert unknown ca')]"

    scene.ledger.disconnect("c1")

    assert scene.events[-1].reason == "tls_client_rejected_ca"  # type: ignore[attr-defined]
    assert scene.events[-1].suspected is False  # type: ignore[attr-defined]


@pytest.mark.parametrize("kind", ["cleared", "failures"])
def test_what_one_connection_remembers_is_bounded(kind: str) -> None:
    record = ConnectionRecord(id="c", opened=0.0)
    policy = parse_policy("version: 1\ndefault: allow")

    for number in range(1000):
        host = f"h{number}.test"
        record.clear(judge_request(policy, parse_host(host), 443, "GET", "/"))
        record.failed(host, 443, FAILURE)

    kept = getattr(record, kind)
    assert len(kept) == 128
    assert ("h999.test", 443) in kept


def test_an_address_rule_clears_its_own_networks_and_a_default_none() -> None:
    by_rule = parse_policy("version: 1\nrules: [{allow: ['10.0.0.0/8']}]")
    by_default = parse_policy("version: 1\ndefault: allow")
    address = parse_host("10.1.2.3")
    record = ConnectionRecord(id="c", opened=0.0)

    record.clear(judge_request(by_rule, address, 443, "GET", "/"))
    assert [str(network) for network in record.cleared["10.1.2.3", 443]] == ["10.0.0.0/8"]

    record.clear(judge_request(by_default, address, 443, "GET", "/"))
    assert record.cleared["10.1.2.3", 443] == ()


def test_what_a_stop_ends_is_not_put_down_to_the_workload() -> None:
    scene = Scene()
    scene.request()

    scene.ledger.shut_down()
    scene.ledger.disconnect("c1")

    ends = [event for event in scene.events if event.name in CLOSING]
    assert [(event.name, event.reason) for event in ends] == [("request_denied", "shutdown")]  # type: ignore[attr-defined]
