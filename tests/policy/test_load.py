"""From YAML to a policy: what is read, and what each error says."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.policy import Dns, PolicyError, Protocol, Verdict, load_policy, parse_policy

POLICY = """\
version: 1
default: deny
rules:
  - name: github-read
    allow: ["api.github.com", "*.githubusercontent.com"]
    methods: [GET, HEAD]
    paths: ["/repos/**"]
  - deny: ["**.internal.example.com"]
    dns: real
  - allow: [db.example.com]
    protocol: tcp
    ports: [5432, "8000-8100"]
    mode: enforce
network:
  allow_addresses: ["10.20.0.0/16", "::1"]
  dns: synthetic
"""


def test_a_policy_is_read() -> None:
    policy = parse_policy(POLICY, "p.yaml")

    first, second, third = policy.rules
    assert (policy.default, policy.source, len(policy.hash)) == (Verdict.DENY, "p.yaml", 16)
    assert (first.label, first.hosts) == ("rules[0] 'github-read'", ("api.github.com", "*.githubusercontent.com"))
    assert (first.ports, first.methods, first.dns) == (((80, 80), (443, 443)), frozenset(("GET", "HEAD")), None)
    assert (second.label, second.verdict, second.ports, second.dns) == (
        "rules[1]",
        Verdict.DENY,
        ((1, 65535),),
        Dns.REAL,
    )
    assert (third.protocol, third.ports) == (Protocol.TCP, ((5432, 5432), (8000, 8100)))
    assert (first.position.line, third.position.column) == (4, 5)
    assert first.pattern_positions[1].column == 31
    assert [str(network) for network in policy.network.allow_addresses] == ["10.20.0.0/16", "::1/128"]


def test_equal_texts_have_equal_hashes_and_others_do_not() -> None:
    assert parse_policy(POLICY).hash == parse_policy(POLICY).hash
    assert parse_policy(POLICY).hash != parse_policy(POLICY + "#\n").hash


RULE = "version: 1\nrules:\n  - "


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        pytest.param("", [":1:1: is empty; a policy that denies everything is 'version: 1'"], id="empty"),
        pytest.param("# nothing\n", ["is empty"], id="only a comment"),
        pytest.param("- a\n", [":1:1: is not a mapping"], id="a list"),
        pytest.param("rules: []\n", [":1:1: version: is missing; write 'version: 1'"], id="no version"),
        pytest.param("version: 2\n", [":1:10: version: must be 1, not 2"], id="another version"),
        pytest.param("version: '1'\n", ["must be 1, not '1'"], id="a version that is a text"),
        pytest.param(
            "version: 1\ndefault: passthrough\n", [":2:10: default: must be 'allow' or 'deny'"], id="another default"
        ),
        pytest.param(
            "version: 1\nrule: []\n", [":2:1: rule: 'rule' is not a key; write 'rules'"], id="a key that is nearly one"
        ),
        pytest.param(
            RULE + "alow: [a.test]",
            ["rules[0].alow: 'alow' is not a key; write 'allow'", "neither allow, deny nor passthrough"],
            id="a key of a rule that is nearly one",
        ),
        pytest.param(
            RULE + "allow: [a.test]\n    default: deny",
            ["belongs to the top of the file"],
            id="a key in the wrong place",
        ),
        pytest.param("version: 1\nrules: {}\n", [":2:8: rules: must be a list"], id="rules that are no list"),
        pytest.param(RULE + "foo", [":3:5: rules[0]: must be a mapping"], id="a rule that is a text"),
        pytest.param(
            RULE + "allow: a.test",
            [":3:12: rules[0].allow: must be a list; write ['a.test']"],
            id="hosts that are no list",
        ),
        pytest.param(RULE + "allow:", ["rules[0].allow: must be a list"], id="hosts without a value"),
        pytest.param(RULE + "allow: []", ["rules[0].allow: is empty; write ['api.example.com']"], id="no hosts"),
        pytest.param(RULE + "allow: [1]", ["rules[0].allow[0]: 1 is not a text"], id="a host that is a number"),
        pytest.param(
            RULE + 'allow: [a.test, "*b.test"]',
            [":3:21: rules[0].allow[1]: '*b.test' is not a host pattern; write 'b.test' or '*.b.test'"],
            id="a wildcard for a part of a label",
        ),
        pytest.param(
            RULE + "allow: [*.a.test]",
            [":3:13: rules[0].allow[0]: *.a.test reads as a YAML alias; put a pattern in quotes: '*.a.test'"],
            id="a wildcard without quotes",
        ),
        pytest.param(
            RULE + "allow: [a.test]\n    deny: [b.test]",
            [":4:5: rules[0].deny: stands beside 'allow'"],
            id="two verdicts",
        ),
        pytest.param(
            RULE + "passthrough: [a.test]\n    methods: [GET]",
            [":4:5: rules[0].methods: can't be seen"],
            id="a passthrough with methods",
        ),
        pytest.param(RULE + "allow: [a.test]\n    protocol: tcp", ["ports: [5432]"], id="raw TCP without ports"),
        pytest.param(
            RULE + "allow: [a.test]\n    protocol: tcp\n    ports: [1]\n    paths: [/]",
            ["belongs to HTTP"],
            id="raw TCP with paths",
        ),
        pytest.param(
            RULE + "passthrough: [a.test]\n    protocol: tcp\n    ports: [1]",
            ["write 'allow' instead"],
            id="raw TCP passed through",
        ),
        pytest.param(RULE + "allow: [a.test]\n    methods: [get]", ["write 'GET'"], id="a method in lower case"),
        pytest.param(RULE + "allow: [a.test]\n    dns_types: [txt]", ["write TXT"], id="a record type in lower case"),
        pytest.param(
            RULE + "allow: [a.test]\n    dns_types: [AXFR]", ["can be allowed; write CAA"], id="a zone transfer"
        ),
        pytest.param(RULE + "allow: [a.test]\n    dns_types: [A]", ["A needs no rule"], id="a type that needs no rule"),
        pytest.param(RULE + "deny: [a.test]\n    dns_types: [TXT]", ["the rule denies"], id="records of a denial"),
        pytest.param(RULE + "allow: [a.test]\n    ports: 443", ["write [443]"], id="ports that are no list"),
        pytest.param(RULE + "allow: [a.test]\n    ports: ['443']", ["write 443"], id="a port that is a text"),
        pytest.param(
            RULE + "allow: [a.test]\n    ports: [true]", ["True is not a port"], id="a port that is a truth value"
        ),
        pytest.param(
            RULE + "allow: [a.test]\n    ports: [65536]", ["ports are 1 to 65535"], id="a port that is too high"
        ),
        pytest.param(RULE + "allow: [a.test]\n    ports: ['9-1']", ["write '1-9'"], id="a range that is reversed"),
        pytest.param(
            RULE + "allow: [a.test]\n    name: x\n  - name: x\n    deny: [b.test]",
            [":5:5: rules[1].name: 'x' is the name of rules[0] already"],
            id="a name that is taken",
        ),
        pytest.param(
            RULE + "decide: ['**']\n    decider: {}",
            ["rules[0].decide: is not supported yet", "rules[0].decider: is not supported yet"],
            id="a decider",
        ),
        pytest.param(
            RULE + "allow: [a.test]\n    expires: 2030-01-01",
            ["rules[0].expires: is not supported yet"],
            id="an expiry",
        ),
        pytest.param(
            RULE + "allow: [a.test]\n    mode: audit",
            ["'audit' is not supported yet; write 'enforce'"],
            id="audit mode",
        ),
        pytest.param("version: 1\ncredentials: []\n", ["credentials: is not supported yet"], id="credentials"),
        pytest.param(
            "version: 1\nnetwork: {allow_addresses: [10.0.0.1/8]}",
            ["write '10.0.0.0/8'"],
            id="an exception with host bits",
        ),
        pytest.param(
            "version: 1\nnetwork: {allow_addresses: [a.test]}",
            ["is not an address or a network"],
            id="an exception that is a name",
        ),
        pytest.param(
            "version: 1\nnetwork: {dns: reel}",
            ["must be 'synthetic' or 'real', not 'reel'"],
            id="another way to answer names",
        ),
        pytest.param(
            "version: 1\nversion: 1\n", [":2:1: version: given twice, first on line 1"], id="a key given twice"
        ),
        pytest.param("version: &a 1\n", ["the anchor &a isn't supported"], id="an anchor"),
        pytest.param("version: !!int 1\n", ["the tag"], id="a tag"),
        pytest.param("version: 1\n---\nversion: 1\n", ["a second document begins here"], id="two documents"),
        pytest.param("? [a]\n: 1\n", ["a key must be a text"], id="a key that is a list"),
        pytest.param("version: 1\nrules: [\n", ["not valid YAML"], id="not YAML"),
        pytest.param("version: 1\nrules: " + "[" * 5000, ["nested more than 16 deep"], id="deep nesting"),
        pytest.param("\x00", ["not valid YAML"], id="a control character"),
    ],
)
def test_an_error_says_where_what_and_what_to_write_instead(text: str, lines: list[str]) -> None:
    with pytest.raises(PolicyError) as caught:
        parse_policy(text, "p.yaml")

    found = str(caught.value).splitlines()
    assert len(found) == len(lines) == len(caught.value.problems)
    for line, expected in zip(found, lines, strict=True):
        assert line.startswith("p.yaml:")
        assert expected in line


def test_all_problems_of_a_file_are_told_at_once_in_its_order() -> None:
    with pytest.raises(PolicyError) as caught:
        parse_policy("version: 1\nrules:\n  - allow: ['a..b', 'x:1']\n    dney: [c.test]\nnetwrk: {}\n")

    assert [(problem.line, problem.where) for problem in caught.value.problems] == [
        (3, "rules[0].allow[0]"), (3, "rules[0].allow[1]"), (4, "rules[0].dney"), (5, "netwrk"),
    ]  # fmt: skip


def test_words_are_texts_as_in_yaml_1_2() -> None:
    policy = parse_policy("version: 1\nrules: [{allow: [no, on], name: yes}]")

    assert (policy.rules[0].hosts, policy.rules[0].name) == (("no", "on"), "yes")


def test_an_alias_bomb_is_refused_before_it_grows() -> None:
    text = "a: &a [x]\n" + "".join(f"{chr(98 + i)}: &{chr(98 + i)} [{f'*{chr(97 + i)},' * 9}]\n" for i in range(20))

    with pytest.raises(PolicyError) as caught:
        parse_policy(text)

    assert len(caught.value.problems) <= 100


def test_a_file_is_loaded(tmp_path: Path) -> None:
    file = tmp_path / "policy.yaml"
    file.write_bytes(b"\xef\xbb\xbf" + POLICY.encode())

    policy = load_policy(file)

    assert (len(policy.rules), policy.source) == (3, str(file))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param(None, "can't be read: no such file", id="missing"),
        pytest.param(b"", "is empty", id="empty"),
        pytest.param(b"version: \xff", "is not UTF-8 (byte 9)", id="not UTF-8"),
        pytest.param(b"#" * (1024 * 1024 + 1), "is larger than 1 MiB", id="too large"),
    ],
)
def test_a_file_that_cannot_be_loaded_is_named(tmp_path: Path, content: bytes | None, message: str) -> None:
    file = tmp_path / "policy.yaml"
    if content is not None:
        file.write_bytes(content)

    with pytest.raises(PolicyError) as caught:
        load_policy(file)

    assert str(caught.value).startswith(f"{file}:")
    assert message in str(caught.value)


def test_a_directory_is_no_policy(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match="is a directory"):
        load_policy(tmp_path)


FRAGMENTS = st.lists(
    st.sampled_from(
        (
            *("version: 1\n", "rules:\n", "  - ", "allow: ", "deny: ", "[", "]", "{", "}", ", ", "'**'", "*a", "&a "),
            *("!!x ", "\n", "    ports: ", "443", "'1-2'", "null", "methods: ", "paths: ", "? ", "- ", "\t"),
            *("%YAML 1.1\n", "---\n", "|\n", '"\\x', "<<: "),
        )
    ),
    max_size=12,
).map("".join)


@settings(max_examples=200, deadline=None)
@given(st.one_of(st.text(max_size=60), FRAGMENTS, FRAGMENTS.map(lambda text: "version: 1\nrules:\n  - " + text)))
def test_any_text_is_a_policy_or_a_policy_error(text: str) -> None:
    try:
        parse_policy(text)
    except PolicyError as e:
        assert e.problems
