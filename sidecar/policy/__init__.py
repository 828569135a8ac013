"""The policy: read from YAML, compiled once, asked about names, requests and connections."""

from sidecar.policy.decide import judge_name, judge_request, judge_tcp, may_be_tcp
from sidecar.policy.explain import Explanation, Target, UrlError, explain_url, parse_url
from sidecar.policy.lint import lint_policy
from sidecar.policy.load import load_policy, parse_policy
from sidecar.policy.patterns import HostPattern, PatternError, parse_pattern
from sidecar.policy.problems import PolicyError, PolicyFileError, Position, Problem
from sidecar.policy.rules import Decision, Dns, Network, Policy, Protocol, Rule, Verdict

__all__ = [
    "Decision",
    "Dns",
    "Explanation",
    "HostPattern",
    "Network",
    "PatternError",
    "Policy",
    "PolicyError",
    "PolicyFileError",
    "Position",
    "Problem",
    "Protocol",
    "Rule",
    "Target",
    "UrlError",
    "Verdict",
    "explain_url",
    "judge_name",
    "judge_request",
    "judge_tcp",
    "lint_policy",
    "load_policy",
    "may_be_tcp",
    "parse_pattern",
    "parse_policy",
    "parse_url",
]
