"""Explanations: which rule decides, and why those before it don't."""

import pytest

from sidecar.policy import UrlError, Verdict, explain_url, parse_policy

POLICY = parse_policy(
    """
version: 1
rules:
  - {deny: ["**.internal.test"]}
  - {name: read, allow: [a.test], methods: [GET], paths: ["/repos/**"]}
  - {allow: [a.test], protocol: tcp, ports: [22]}
  - {allow: [a.test], ports: [8443]}
  - {passthrough: [pinned.test]}
  - {allow: [192.0.2.0/24]}
"""
)


@pytest.mark.parametrize(
    ("url", "method", "verdict", "rule", "reasons"),
    [
        pytest.param("https://x.internal.test/", "GET", Verdict.DENY, 0, [], id="the first rule denies"),
        pytest.param("https://a.test/repos/x?y", "GET", Verdict.ALLOW, 1, ["hosts"], id="another host"),
        pytest.param(
            "https://a.test/repos/x",
            "PUT",
            Verdict.DENY,
            None,
            ["hosts", "method PUT", "port 443", "port 443", "hosts", "hosts"],
            id="another method",
        ),
        pytest.param(
            "https://a.test/x",
            "GET",
            Verdict.DENY,
            None,
            ["hosts", "path /x is not", "port", "port", "hosts", "hosts"],
            id="another path",
        ),
        pytest.param(
            "https://a.test/repos/..%2fx",
            "GET",
            Verdict.DENY,
            None,
            ["hosts", "not every way to read", "port", "port", "hosts", "hosts"],
            id="a path of several readings",
        ),
        pytest.param(
            "https://a.test:22/",
            "GET",
            Verdict.DENY,
            None,
            ["hosts", "port 22", "raw TCP, not HTTP", "port", "hosts", "hosts"],
            id="a request where raw TCP is allowed",
        ),
        pytest.param("tcp://a.test:22", "GET", Verdict.ALLOW, 2, ["hosts", "port 22"], id="raw TCP"),
        pytest.param(
            "tcp://a.test:8443",
            "GET",
            Verdict.DENY,
            None,
            ["hosts", "port", "port", "HTTP requests, not raw TCP", "hosts", "hosts"],
            id="raw TCP where requests are allowed",
        ),
        pytest.param("https://pinned.test", "GET", Verdict.PASSTHROUGH, 4, ["hosts"] * 4, id="what is passed through"),
        pytest.param("http://pinned.test", "GET", Verdict.ALLOW, 4, ["hosts"] * 4, id="plain HTTP counts as allowed"),
        pytest.param(
            "https://192.0.2.7/", "GET", Verdict.ALLOW, 5, ["names never match an address"] * 5, id="an address"
        ),
    ],
)
def test_a_url_is_explained(url: str, method: str, verdict: Verdict, rule: int | None, reasons: list[str]) -> None:
    explanation = explain_url(POLICY, url, method)

    decision = explanation.decision
    assert (decision.verdict, decision.rule.index if decision.rule else None) == (verdict, rule)
    assert [passed.index for passed, _ in explanation.passed_over] == list(range(len(reasons)))
    for (_, why), expected in zip(explanation.passed_over, reasons, strict=True):
        assert expected in why


@pytest.mark.parametrize(
    "url", ["a.test", "ftp://a.test/", "https://", "https://u@a.test/", "tcp://a.test", "https://a..b/"]
)
def test_what_is_no_url_is_refused(url: str) -> None:
    with pytest.raises(UrlError):
        explain_url(POLICY, url)


@pytest.mark.parametrize("rule", ["allow", "deny", "passthrough"])
def test_no_rule_decides_on_the_built_in_host(rule: str) -> None:
    policy = parse_policy(f"version: 1\nrules: [{{{rule}: [trust.egress.internal]}}]")

    https = explain_url(policy, "https://trust.egress.internal/")
    tcp = explain_url(policy, "tcp://trust.egress.internal:443")

    assert (https.decision.verdict, https.decision.reason, https.passed_over) == (Verdict.ALLOW, "builtin", ())
    assert (tcp.decision.verdict, tcp.decision.reason) == (Verdict.DENY, "builtin")
