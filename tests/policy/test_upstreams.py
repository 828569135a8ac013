"""`upstreams` in a policy: what is read, what each error says, what is doubtful."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.hosts import parse_host
from sidecar.policy import PolicyError, lint_policy, parse_pattern, parse_policy
from sidecar.policy.upstreams import Accept

POLICY = """\
version: 1
rules: [{allow: ["*.example.com"]}]
upstreams:
  - hosts: ["db.example.com", 10.0.0.0/8]
    roots: db-ca.pem
    client_certificate: {certificate: /run/db/tls.crt, key: /run/db/tls.key}
    crl: lists/db.pem
    accept: [cbc, ca_leaf]
  - hosts: ["*.example.com"]
    add_roots: more.pem
"""


def test_entries_are_read() -> None:
    first, second = parse_policy(POLICY).upstreams

    assert [pattern.text for pattern in first.patterns] == ["db.example.com", "10.0.0.0/8"]
    assert [file.path for file in first.files] == ["db-ca.pem", "/run/db/tls.crt", "/run/db/tls.key", "lists/db.pem"]
    assert [(file.position.line, file.position.column) for file in first.files] == [(5, 12), (6, 39), (6, 61), (7, 10)]
    assert first.accept == {Accept.CBC, Accept.CA_LEAF}
    assert (second.index, second.roots, second.client_key) == (1, None, None)
    assert second.add_roots is not None
    assert second.accept == frozenset()


ENTRY = "version: 1\nupstreams:\n  - "


@pytest.mark.parametrize(
    ("entry", "problem"),
    [
        pytest.param("{crl: a}", ":3:5: upstreams[0].hosts: is missing", id="no hosts"),
        pytest.param("{hosts: [a.test]}", ":3:5: upstreams[0]: says nothing of its hosts", id="only hosts"),
        pytest.param("{hosts: ['a.test:443'], crl: a}", "has a port; write 'a.test' here", id="a port"),
        pytest.param("{hosts: [a.test], roots: a, add_roots: b}", "stands beside 'roots'", id="both kinds of roots"),
        pytest.param("{hosts: [a.test], crl: }", "None is not a text", id="a file without a value"),
        pytest.param("{hosts: [a.test], crl: ''}", "'' is not a path; write one such as", id="an empty path"),
        pytest.param(
            "{hosts: [a.test], client_certificate: {certificate: a}}", ".key: is missing; write 'key:", id="no key"
        ),
        pytest.param("{hosts: [a.test], client_certificate: a}", "must be a mapping", id="a certificate alone"),
        pytest.param("{hosts: [a.test], client_certificate: }", "must be a mapping", id="no value"),
        pytest.param("{hosts: [a.test], client_key: a}", "'client_key' is not a key", id="an unknown key"),
        pytest.param("{hosts: [a.test], paths: ['/']}", "it belongs to rules[]", id="a rule's key"),
        pytest.param("{hosts: [a.test], accept: cbc}", "must be a list; write ['cbc']", id="not a list"),
        *(
            pytest.param(
                f"{{hosts: [a.test], accept: [{word}]}}",
                "what can is ca_leaf, missing_staple, long_lived, static_rsa, cbc; chain, name and validity can't",
                id=f"accepting {word}",
            )
            for word in ("chain", "name", "validity", "expired", "self_signed", "any", "'**'", "revoked", "tls10")
        ),
    ],
)
def test_an_entry_that_can_not_be_meant_is_an_error(entry: str, problem: str) -> None:
    with pytest.raises(PolicyError) as raised:
        parse_policy(ENTRY + entry, "p.yaml")

    assert problem in str(raised.value)
    assert str(raised.value).startswith("p.yaml:3:")


@pytest.mark.parametrize(
    ("policy", "warnings"),
    [
        pytest.param("rules: [{allow: [a.test]}]", ["no rule allows 'b.test'"], id="no rule allows it"),
        pytest.param("rules: [{passthrough: [b.test]}]", ["no rule allows 'b.test'"], id="it is passed through"),
        pytest.param(
            "rules: [{allow: [b.test], protocol: tcp, ports: [443]}]", ["no rule allows 'b.test'"], id="its TCP is raw"
        ),
        pytest.param("rules: [{allow: ['*.test']}]", [], id="a wildcard allows it"),
        pytest.param("default: allow", [], id="the default allows it"),
    ],
)
def test_an_entry_without_effect_is_warned_of(policy: str, warnings: list[str]) -> None:
    found = lint_policy(parse_policy(f"version: 1\n{policy}\nupstreams: [{{hosts: [b.test], accept: [cbc]}}]\n"))

    assert [problem.where for problem in found] == ["upstreams[0].hosts[0]"] * len(warnings)
    assert all(text in problem.message for text, problem in zip(warnings, found, strict=True))


def test_an_entry_behind_one_that_covers_it_is_warned_of() -> None:
    entries = "{hosts: ['*.test'], accept: [cbc]}, {hosts: [c.example, a.test], accept: [ca_leaf]}"

    (found,) = lint_policy(parse_policy(f"version: 1\ndefault: allow\nupstreams: [{entries}]\n"))

    assert found.where == "upstreams[1].hosts[1]"
    assert "is never reached: upstreams[0] has it" in found.message


LABELS = st.lists(st.sampled_from(["a", "b", "*", "**"]), min_size=1, max_size=4).map(".".join)
NAMES = st.lists(st.sampled_from(["a", "b"]), min_size=1, max_size=6).map(".".join)


@settings(max_examples=300, deadline=None)
@given(LABELS, LABELS, NAMES)
def test_patterns_that_share_a_host_overlap(one: str, other: str, name: str) -> None:
    host = parse_host(name)

    if parse_pattern(one).matches(host) and parse_pattern(other).matches(host):
        assert parse_pattern(one).overlaps(parse_pattern(other))


@pytest.mark.parametrize(
    ("one", "other", "overlap"),
    [
        ("**.a", "b.**", True),
        ("*.a", "b.*", True),
        ("a.*", "*.b.*", False),
        ("**.a", "*.b", False),
        ("**", "a", True),
        ("**", "10.0.0.1", False),
        ("10.0.0.0/8", "10.1.0.0/16", True),
        ("10.0.0.0/8", "fd00::/8", False),
    ],
)
def test_overlap(one: str, other: str, overlap: bool) -> None:
    assert parse_pattern(one).overlaps(parse_pattern(other)) is overlap
    assert parse_pattern(other).overlaps(parse_pattern(one)) is overlap
