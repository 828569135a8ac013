"""Condukt's matcher and policies: ours decide equally, but for the classes below."""

import json
from pathlib import Path
from typing import Any

import pytest

from sidecar.hosts import HostError, parse_host
from sidecar.policy import PatternError, PolicyError, judge_name, parse_pattern, parse_policy

FILE = Path(__file__).parents[2].parent / "shared" / "vectors" / "condukt.json"

pytestmark = pytest.mark.skipif(not FILE.exists(), reason="the shared vectors are not here")

VECTORS: dict[str, Any] = json.loads(FILE.read_text()) if FILE.exists() else {"glob": [], "policy": []}

# Patterns that are errors here: they name a part of a label, nothing, or an address with wildcards.
REFUSED = {
    "", ".", "***.example.com", "**-cdn.example.com", "**example.com", "*-cdn.example.com", "*a.example.com",
    "a*.example.com", "a*b.example.com", "api-**.example.com", "10.*.*.*",
}  # fmt: skip


def differs(pattern: str, host: str) -> str | None:
    """Why a row is decided differently here; None where it isn't."""
    target = parse_host(host)
    if target.is_address and "*" in pattern:
        return "wildcards match names, never addresses"
    if target.is_address and parse_pattern(pattern).network is not None:
        return "addresses are compared as addresses, not as texts: brackets make no difference"
    if host.endswith(".") or pattern.endswith("."):
        return "a trailing dot makes no difference"
    if not (pattern.isascii() and host.isascii()):
        return "a name is the same in U-labels and A-labels"
    return None


def test_the_rows_of_the_matcher() -> None:
    compared = differing = 0
    for row in VECTORS["glob"]:
        try:
            host = parse_host(row["host"])
            pattern = parse_pattern(row["pattern"])
        except (HostError, PatternError):
            continue
        compared += 1
        if pattern.matches(host) is not row["match"]:
            assert differs(row["pattern"], row["host"]), row
            differing += 1

    assert compared > 800
    assert 0 < differing < compared / 10


def test_the_patterns_that_are_refused_are_those_that_are_listed() -> None:
    refused = set()
    for pattern in {row["pattern"] for row in VECTORS["glob"]}:
        try:
            parse_pattern(pattern)
        except PatternError:
            refused.add(pattern)

    assert refused == REFUSED


@pytest.mark.parametrize("row", VECTORS["policy"], ids=lambda row: f"{row['host']}: {row['expect']}")
def test_the_rows_of_the_policy(row: dict[str, Any]) -> None:
    rules = [{rule["type"]: rule.get("hosts", ["**"])} for rule in row["rules"]]
    default = {"default": row["default"]} if row["default"] else {}
    text = json.dumps({"version": 1, "rules": rules, **default})
    if any("decide" in rule for rule in rules):
        with pytest.raises(PolicyError, match="decide: is not supported yet"):
            parse_policy(text)
        return

    decision = judge_name(parse_policy(text), parse_host(row["host"]), 443)

    reasons = {"rule_deny": "deny:matched_deny_list", "default_deny": "deny:default_deny"}
    assert reasons.get(decision.reason, "allow") == row["expect"]
    assert (decision.rule.index if decision.rule else None) == row["matched_index"]
