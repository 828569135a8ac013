import pytest

from sidecar.hosts import parse_host
from sidecar.names.policy_rules import PolicyRules
from sidecar.names.questions import Naming
from sidecar.names.records import Type
from sidecar.policy.load import parse_policy

SEARCH = ("default.svc.cluster.local", "svc.cluster.local", "cluster.local")
POLICY = parse_policy("""
version: 1
rules:
  - deny: ["bad.example.com"]
  - deny: ["half.example.com"]
    ports: [443]
  - allow: ["read.example.com"]
    methods: [GET]
  - allow: ["truth.example.com"]
    dns: real
  - allow: ["db.example.net"]
    protocol: tcp
    ports: [5432]
  - allow: ["*.example.com", "*.default.svc.cluster.local", "db.prod.svc.cluster.local", "compose-db", "*"]
""")
RULES = PolicyRules(POLICY)


@pytest.mark.parametrize(
    ("name", "allows"),
    [
        pytest.param("api.example.com", True, id="by a wildcard"),
        pytest.param("bad.example.com", False, id="a denial before it"),
        pytest.param("half.example.com", True, id="a denial of one port leaves the others"),
        pytest.param("read.example.com", True, id="a rule narrowed by methods could allow something"),
        pytest.param("db.example.net", True, id="raw TCP on one port"),
        pytest.param("evil.test", False, id="by default"),
    ],
)
def test_allows(name: str, allows: bool) -> None:
    assert RULES.allows(parse_host(name)) is allows


def test_default_allow_allows_what_no_rule_names() -> None:
    rules = PolicyRules(parse_policy("version: 1\ndefault: allow\nrules:\n  - deny: [bad.test]\n"))
    assert rules.allows(parse_host("any.test"))
    assert not rules.allows(parse_host("bad.test"))


def test_real_is_a_rules_matter_and_else_the_policys() -> None:
    assert RULES.real(parse_host("truth.example.com"))
    assert not RULES.real(parse_host("api.example.com"))
    everything = PolicyRules(
        parse_policy(
            "version: 1\nnetwork: {dns: real}\nrules:\n"
            "  - allow: [a.test]\n    dns: synthetic\n  - deny: [b.test]\n  - allow: ['*.test']\n"
        )
    )
    assert [everything.real(parse_host(name)) for name in ("a.test", "b.test", "c.test", "d.example")] == [
        False,
        True,
        True,
        True,
    ]


@pytest.mark.parametrize(
    ("name", "naming"),
    [
        pytest.param("db.prod.svc.cluster.local", Naming.EXACT, id="by its name"),
        pytest.param("web.default.svc.cluster.local", Naming.SUFFIX, id="by a suffix in a search domain"),
        pytest.param("compose-db", Naming.EXACT, id="a single label by its name"),
        pytest.param("other", Naming.NO, id="a single label by a wildcard for any"),
        pytest.param("web.prod.svc.cluster.local", Naming.NO, id="by no pattern"),
        pytest.param("api.example.com", Naming.NO, id="by a suffix outside of the search domains"),
    ],
)
def test_naming(name: str, naming: Naming) -> None:
    assert RULES.naming(parse_host(name), SEARCH) is naming


def test_types_are_those_of_the_rules_that_let_a_host_through() -> None:
    text = "version: 1\nrules:\n  - {allow: ['*.example.com'], dns_types: [TXT, MX]}\n  - {allow: [db.example.net]}\n"
    rules = PolicyRules(parse_policy(text))
    assert rules.types(parse_host("api.example.com")) == {Type.TXT, Type.MX}
    assert rules.types(parse_host("db.example.net")) == frozenset()
    assert RULES.types(parse_host("api.example.com")) == frozenset()
