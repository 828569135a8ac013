"""Warnings: about what is valid but hardly meant, and about nothing else."""

import pytest

from sidecar.policy import lint_policy, parse_policy


@pytest.mark.parametrize(
    ("rules", "warnings"),
    [
        pytest.param(
            "{deny: ['**.a.example']}, {allow: ['x.a.example']}",
            ["2:35: rules[1]: is never reached: rules[0] decides"],
            id="a name behind a pattern that covers it",
        ),
        pytest.param(
            "{deny: ['*.a.example', b.example]}, {allow: [b.example, x.a.example]}",
            ["rules[1]: is never reached"],
            id="hosts that one rule covers with several patterns",
        ),
        pytest.param(
            "{deny: [a.example]}, {deny: [b.example]}, {allow: [a.example, b.example]}",
            ["rules[2]: is never reached: rules[0] and rules[1] decide"],
            id="hosts that several rules cover",
        ),
        pytest.param(
            "{deny: [10.0.0.0/8]}, {allow: [10.1.0.0/16]}", ["rules[1]: is never reached"], id="a network in a network"
        ),
        pytest.param(
            "{allow: [a.example], protocol: tcp, ports: [1]}, {deny: [a.example], protocol: tcp, ports: [1]}",
            ["rules[1]: is never reached"],
            id="raw TCP behind raw TCP",
        ),
        pytest.param("{deny: ['*.a.example']}, {allow: [x.a.example, y.example]}", [], id="hosts that overlap"),
        pytest.param(
            "{deny: ['*.a.example'], methods: [PUT]}, {allow: [x.a.example]}", [], id="an earlier rule that is narrowed"
        ),
        pytest.param("{allow: [a.example]}, {allow: [a.example], ports: [8443]}", [], id="other ports"),
        pytest.param("{allow: [a.example]}, {deny: [a.example]}", [], id="a deny that closes the other ports"),
        pytest.param(
            "{allow: [a.example]}, {allow: [a.example], protocol: tcp, ports: [443]}", [], id="raw TCP behind HTTP"
        ),
        pytest.param("{allow: [a.example]}, {deny: ['**.example']}", [], id="an exception before its rule"),
        pytest.param(
            "{allow: ['**']}", ["rules[0].allow[0]: '**' matches names that anyone can register"], id="any name"
        ),
        pytest.param("{allow: ['api.*']}", ["anyone can register"], id="a wildcard at the end"),
        pytest.param(
            "{passthrough: [a.example, '*.com']}",
            ["rules[0].passthrough[1]: '*.com': anyone can have a name under 'com'"],
            id="a top-level domain",
        ),
        pytest.param("{allow: ['**.co.uk']}", ["under 'co.uk'"], id="a public suffix"),
        pytest.param("{allow: ['*.github.io']}", ["under 'github.io'"], id="a domain of a host of strangers"),
        pytest.param("{allow: [0.0.0.0/0]}", ["name a network of /8 or smaller"], id="every address"),
        pytest.param(
            "{allow: ['**.internal', '*.example.com', co.uk, 10.0.0.0/8]}", [], id="patterns that are narrow enough"
        ),
        pytest.param("{deny: ['**', '*.com', 0.0.0.0/0]}", [], id="a broad deny"),
    ],
)
def test_lint_warns(rules: str, warnings: list[str]) -> None:
    found = lint_policy(parse_policy(f"version: 1\nrules: [{rules}]"))

    assert len(found) == len(warnings)
    for problem, expected in zip(found, warnings, strict=True):
        assert expected in str(problem)


def test_a_warning_stands_where_its_cause_does() -> None:
    policy = parse_policy(
        "version: 1\nrules:\n  - deny: [a.example]\n  - allow:\n      - a.example\n  - allow: ['**']\n"
    )

    assert [(warning.line, warning.column, warning.where) for warning in lint_policy(policy)] == [
        (4, 5, "rules[1]"), (6, 13, "rules[2].allow[0]"),
    ]  # fmt: skip
