"""Decisions: of a name and port, of a whole request, of raw TCP."""

import pytest

from sidecar.hosts import parse_host
from sidecar.policy import Verdict, judge_name, judge_request, judge_tcp, may_be_tcp, parse_policy
from sidecar.reasons import Reason

ALLOW, DENY, PASSTHROUGH = Verdict


def policy_of(*rules: str, default: str = "deny") -> str:
    return f"version: 1\ndefault: {default}\nrules: [{', '.join('{' + rule + '}' for rule in rules)}]"


A = "allow: [a.test]"
GET_ONLY = "allow: [a.test], methods: [GET]"
NO_ADMIN = "deny: [a.test], paths: ['/admin/**']"
PASS = "passthrough: [a.test]"
NO_A = "deny: [a.test]"
TCP = "allow: [a.test], protocol: tcp, ports: [443]"


@pytest.mark.parametrize(
    ("policy", "host", "port", "verdict", "reason", "rule"),
    [
        pytest.param(policy_of(), "a.test", 443, DENY, Reason.DEFAULT_DENY, None, id="no rule denies"),
        pytest.param(
            policy_of(default="allow"),
            "a.test",
            8443,
            ALLOW,
            Reason.DEFAULT_ALLOW,
            None,
            id="the default holds for every port",
        ),
        pytest.param(policy_of(A), "a.test", 443, ALLOW, Reason.RULE_ALLOW, 0, id="an allow intercepts"),
        pytest.param(policy_of(A), "a.test", 80, ALLOW, Reason.RULE_ALLOW, 0, id="an allow holds for port 80"),
        pytest.param(
            policy_of(A), "a.test", 8443, DENY, Reason.DEFAULT_DENY, None, id="an allow holds for no other port"
        ),
        pytest.param(
            policy_of(A + ", ports: ['8000-8999', 443]"),
            "a.test",
            8443,
            ALLOW,
            Reason.RULE_ALLOW,
            0,
            id="an allow holds for the ports it names",
        ),
        pytest.param(
            policy_of(A + ", ports: ['8000-8999']"),
            "a.test",
            443,
            DENY,
            Reason.DEFAULT_DENY,
            None,
            id="named ports replace the usual ones",
        ),
        pytest.param(
            policy_of(NO_A, default="allow"),
            "a.test",
            8443,
            DENY,
            Reason.RULE_DENY,
            0,
            id="a deny holds for every port",
        ),
        pytest.param(policy_of(NO_A, A), "a.test", 443, DENY, Reason.RULE_DENY, 0, id="the first rule wins"),
        pytest.param(
            policy_of(A, NO_A),
            "a.test",
            443,
            ALLOW,
            Reason.RULE_ALLOW,
            0,
            id="the first rule wins, the other way round",
        ),
        pytest.param(
            policy_of(PASS), "a.test", 443, PASSTHROUGH, Reason.RULE_ALLOW, 0, id="a passthrough passes through"
        ),
        pytest.param(
            policy_of(GET_ONLY, PASS),
            "a.test",
            443,
            ALLOW,
            Reason.RULE_ALLOW,
            0,
            id="a narrowed allow before a passthrough intercepts",
        ),
        pytest.param(
            policy_of(NO_ADMIN, PASS),
            "a.test",
            443,
            ALLOW,
            Reason.RULE_ALLOW,
            1,
            id="a narrowed deny before a passthrough intercepts",
        ),
        pytest.param(
            policy_of(PASS, NO_ADMIN),
            "a.test",
            443,
            PASSTHROUGH,
            Reason.RULE_ALLOW,
            0,
            id="a passthrough before them passes through",
        ),
        pytest.param(
            policy_of(NO_ADMIN),
            "a.test",
            443,
            DENY,
            Reason.DEFAULT_DENY,
            None,
            id="a narrowed deny alone leaves nothing",
        ),
        pytest.param(
            policy_of(NO_ADMIN, default="allow"),
            "a.test",
            443,
            ALLOW,
            Reason.DEFAULT_ALLOW,
            None,
            id="a narrowed deny leaves the rest to the default",
        ),
        pytest.param(
            policy_of(NO_ADMIN, NO_A, A),
            "a.test",
            443,
            DENY,
            Reason.RULE_DENY,
            1,
            id="a narrowed deny leaves the rest to a deny",
        ),
        pytest.param(policy_of(TCP), "a.test", 443, DENY, Reason.DEFAULT_DENY, None, id="a tcp rule allows no request"),
        pytest.param(
            policy_of(TCP, PASS), "a.test", 443, PASSTHROUGH, Reason.RULE_ALLOW, 1, id="a tcp rule is passed over"
        ),
        pytest.param(
            policy_of("allow: ['**']"),
            "192.0.2.1",
            443,
            DENY,
            Reason.DEFAULT_DENY,
            None,
            id="names never match addresses",
        ),
        pytest.param(
            policy_of("passthrough: [192.0.2.0/24]"),
            "192.0.2.1",
            443,
            PASSTHROUGH,
            Reason.RULE_ALLOW,
            0,
            id="networks match addresses",
        ),
        pytest.param(
            policy_of("deny: [10.0.0.0/8]", default="allow"),
            "::ffff:10.0.0.1",
            443,
            DENY,
            Reason.RULE_DENY,
            0,
            id="a mapped address does not evade a denied network",
        ),
        pytest.param(
            policy_of("allow: [10.0.0.0/8]"),
            "::ffff:10.0.0.1",
            443,
            DENY,
            Reason.DEFAULT_DENY,
            None,
            id="a mapped address is not in an allowed network",
        ),
    ],
)
def test_a_name_is_judged(
    policy: str, host: str, port: int, verdict: Verdict, reason: Reason, rule: int | None
) -> None:
    decision = judge_name(parse_policy(policy), parse_host(host), port)

    assert (decision.verdict, decision.reason) == (verdict, reason)
    assert (decision.rule.index if decision.rule else None) == rule


@pytest.mark.parametrize(
    ("policy", "method", "path", "verdict", "rule"),
    [
        pytest.param(policy_of(GET_ONLY), "GET", "/x", ALLOW, 0, id="a named method is allowed"),
        pytest.param(policy_of(GET_ONLY), "HEAD", "/x", DENY, None, id="HEAD is not GET"),
        pytest.param(policy_of(GET_ONLY), "get", "/x", DENY, None, id="an allowed method is case-sensitive"),
        pytest.param(
            policy_of("deny: [a.test], methods: [DELETE]", A),
            "delete",
            "/x",
            DENY,
            0,
            id="a denied method is denied in any case",
        ),
        pytest.param(policy_of(NO_ADMIN, A), "GET", "/admin/x?y", DENY, 0, id="a denied path is denied"),
        pytest.param(policy_of(NO_ADMIN, A), "GET", "/x?/admin/", ALLOW, 1, id="a query is no path"),
        pytest.param(
            policy_of(GET_ONLY, "allow: [a.test], paths: [/upload]"),
            "POST",
            "/upload",
            ALLOW,
            1,
            id="what one rule leaves, a later one may allow",
        ),
        pytest.param(
            policy_of(GET_ONLY + ", paths: [/x]"), "GET", "/y", DENY, None, id="method and path must both match"
        ),
        pytest.param(policy_of(PASS), "POST", "/x", ALLOW, 0, id="a passthrough counts as an allow"),
        pytest.param(policy_of(TCP), "GET", "/x", DENY, None, id="a tcp rule allows no request"),
        pytest.param(
            policy_of("deny: [a.test], protocol: tcp", A), "GET", "/x", ALLOW, 1, id="a tcp rule denies no request"
        ),
    ],
)
def test_a_request_is_judged_whole(policy: str, method: str, path: str, verdict: Verdict, rule: int | None) -> None:
    decision = judge_request(parse_policy(policy), parse_host("a.test"), 443, method, path)

    assert decision.verdict is verdict
    assert (decision.rule.index if decision.rule else None) == rule


@pytest.mark.parametrize(
    ("policy", "verdict", "rule"),
    [
        pytest.param(policy_of(), DENY, None, id="no rule denies"),
        pytest.param(policy_of(default="allow"), ALLOW, None, id="the default may allow"),
        pytest.param(policy_of(TCP), ALLOW, 0, id="a tcp rule allows"),
        pytest.param(policy_of(A), DENY, None, id="an HTTP rule does not"),
        pytest.param(policy_of(PASS), DENY, None, id="nor does a passthrough"),
        pytest.param(policy_of(A, TCP), ALLOW, 1, id="HTTP rules are passed over"),
        pytest.param(policy_of(NO_A, TCP), DENY, 0, id="a deny of either protocol denies"),
        pytest.param(
            policy_of("deny: [a.test], protocol: tcp", default="allow"),
            DENY,
            0,
            id="a deny of raw TCP denies on every port",
        ),
        pytest.param(policy_of(NO_ADMIN, TCP), ALLOW, 1, id="a narrowed deny yields to a later tcp rule"),
        pytest.param(policy_of(NO_ADMIN, default="allow"), DENY, 0, id="a narrowed deny does not yield to the default"),
    ],
)
def test_raw_tcp_is_judged(policy: str, verdict: Verdict, rule: int | None) -> None:
    parsed, host = parse_policy(policy), parse_host("a.test")

    decision = judge_tcp(parsed, host, 443)

    assert decision.verdict is verdict
    assert (decision.rule.index if decision.rule else None) == rule
    assert may_be_tcp(parsed, host, 443) is decision.allowed


def test_rules_found_by_different_ways_are_asked_in_their_order() -> None:
    rules = ["deny: ['**.test']", "allow: [a.test]", "deny: ['*.test']"]

    for first in range(3):
        order = rules[first:] + rules[:first]
        decision = judge_name(parse_policy(policy_of(*order)), parse_host("a.test"), 443)
        assert decision.rule is not None
        assert decision.rule.index == 0
