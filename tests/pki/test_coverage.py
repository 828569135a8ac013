"""A policy and a CA's name constraints, each made to fit the other."""

import pytest
from cryptography import x509

from sidecar.hosts import parse_host
from sidecar.pki import LeafMinter, SessionCa, issue_session_ca
from sidecar.pki.constraints import sides_of
from sidecar.pki.coverage import MAX_SIZE, check_coverage, constraints_for
from sidecar.policy import Policy, PolicyError, parse_policy
from tests.pki.authorities import NOW, authority, constraints

ANY = ["0.0.0.0/0", "::/0"]
OWN = "trust.egress.internal"


def policy(*rules: str, default: str = "deny") -> Policy:
    listed = ["rules:", *(f"  - {rule}" for rule in rules)] if rules else []
    return parse_policy("\n".join(["version: 1", f"default: {default}", *listed]))


def written(value: x509.NameConstraints) -> tuple[set[str], list[str]]:
    permitted, excluded = sides_of(value)
    return {*permitted.domains, *map(str, permitted.networks)} - {OWN}, [
        *map(str, excluded.networks),
        *excluded.domains,
    ]


@pytest.mark.parametrize(
    ("rules", "permitted", "excluded"),
    [
        pytest.param(["allow: [api.example.com]"], {"api.example.com"}, ANY, id="a host stands for itself"),
        pytest.param(["allow: ['*.example.com']"], {"example.com"}, ANY, id="a wildcard for its domain"),
        pytest.param(["allow: ['**.example.com']"], {"example.com"}, ANY, id="however deep"),
        pytest.param(["allow: ['api.*.example.com']"], {"example.com"}, ANY, id="behind the last wildcard"),
        pytest.param(["allow: [Bücher.example]"], {"xn--bcher-kva.example"}, ANY, id="in A-labels"),
        pytest.param(["allow: [www.example.com, '*.example.com']"], {"example.com"}, ANY, id="the outermost alone"),
        pytest.param(["allow: [a.test]", "allow: [b.test]"], {"a.test", "b.test"}, ANY, id="of every rule"),
        pytest.param(
            ["allow: [a.test]\n    methods: [GET]\n    paths: [/x]"], {"a.test"}, ANY, id="also of narrowed ones"
        ),
        pytest.param(["deny: [a.test]"], set(), ANY, id="what is denied isn't permitted"),
        pytest.param(["deny: [x.a.test]", "allow: ['*.a.test']"], {"a.test"}, ANY, id="and isn't excluded either"),
        pytest.param(["passthrough: [a.test]"], set(), ANY, id="what passes through is never answered for"),
        pytest.param(
            ["deny: ['*.test']\n    methods: [POST]", "passthrough: [a.test]"],
            {"a.test"},
            ANY,
            id="unless a narrowed denial before it has it opened",
        ),
        pytest.param(["allow: [a.test]\n    protocol: tcp\n    ports: [22]"], set(), ANY, id="nor is raw TCP"),
        pytest.param(["allow: [192.0.2.1]"], {"192.0.2.1/32"}, ["::/0"], id="an allowed address"),
        pytest.param(
            ["allow: [10.0.0.0/9, 10.128.0.0/9]"], {"10.0.0.0/8"}, ["::/0"], id="networks are put together"
        ),
        pytest.param(["allow: ['2001:db8::/32']"], {"2001:db8::/32"}, ["0.0.0.0/0"], id="an allowed IPv6 network"),
        pytest.param(
            ["allow: [192.0.2.1, '2001:db8::1']"], {"192.0.2.1/32", "2001:db8::1/128"}, [], id="addresses of both kinds"
        ),
    ],
)  # fmt: skip
def test_the_constraints_are_what_is_allowed(rules: list[str], permitted: set[str], excluded: list[str]) -> None:
    value = constraints_for(policy(*rules))

    assert written(value) == (permitted, excluded)
    assert OWN in sides_of(value)[0].domains, "the sidecar's own host is always permitted"


@pytest.mark.parametrize(
    ("rules", "default", "says"),
    [
        pytest.param([], "allow", "default: 'allow' can't be written as name constraints; write 'deny'", id="all"),
        pytest.param(["allow: ['**']"], "deny", r"4:13: rules\[0\].allow\[0\]: '\*\*'", id="every name"),
        pytest.param(["allow: [a.test, 'a.*']"], "deny", r"rules\[0\].allow\[1\]: 'a\.\*'", id="a wildcard at the end"),
        pytest.param(
            [f"allow: [{', '.join(f'host-{n}.example' for n in range(500))}]"],
            "deny",
            f"clients read {MAX_SIZE}",
            id="more than clients read",
        ),
    ],
)  # fmt: skip
def test_what_no_constraint_can_say_is_refused(rules: list[str], default: str, says: str) -> None:
    with pytest.raises(PolicyError, match=says):
        constraints_for(policy(*rules, default=default))


def constrained(permitted: list[str], excluded: list[str] | None = None) -> SessionCa:
    ca = authority("ca", extra=[constraints(permitted, excluded or [])])
    return SessionCa(ca.key, (ca.certificate,), ca.certificate)


@pytest.mark.parametrize(
    ("ca", "rules"),
    [
        pytest.param(issue_session_ca(common_name="s", now=NOW), ["allow: ['**']"], id="a CA without constraints"),
        pytest.param(constrained(["example.com"]), ["allow: [www.example.com, '**.example.com']"], id="inside"),
        pytest.param(constrained([".example.com"]), ["allow: ['*.example.com']"], id="a leading dot"),
        pytest.param(constrained(["example.com"]), ["deny: [example.org]"], id="what is denied needs no leaf"),
        pytest.param(constrained(["example.com"]), ["passthrough: [example.org]"], id="nor what passes through"),
        pytest.param(constrained(["example.com"]), ["allow: [192.0.2.1]"], id="addresses, of which nothing is said"),
        pytest.param(constrained(["10.0.0.0/8"]), ["allow: [10.1.0.0/16]"], id="a network inside of another"),
        pytest.param(constrained([""]), ["allow: ['**']"], id="every name is permitted"),
    ],
)  # fmt: skip
def test_a_policy_within_the_constraints_is_taken(ca: SessionCa, rules: list[str]) -> None:
    assert check_coverage(policy(*rules), ca) == ()


@pytest.mark.parametrize(
    ("ca", "rules", "says"),
    [
        pytest.param(
            constrained(["example.com"]),
            ["name: one\n    allow: [a.example.com, example.org]"],
            r"5:28: rules\[0\].allow\[1\]: 'example.org' can't be answered for: the name "
            r"constraints of CN=ca permit only example.com; take it out, .*--constrain-to",
            id="a host outside",
        ),
        pytest.param(constrained(["www.example.com"]), ["allow: ['*.example.com']"], "example.com'", id="a wider one"),
        pytest.param(constrained(["example.com"]), ["allow: ['**']"], r"'\*\*' can't be answered for", id="every name"),
        pytest.param(constrained([], ANY), ["allow: [192.0.2.1]"], "exclude 0.0.0.0/0", id="an excluded address"),
        pytest.param(constrained(["10.0.0.0/16"]), ["allow: [10.0.0.0/8]"], "10.0.0.0/8", id="a wider network"),
    ],
)  # fmt: skip
def test_a_policy_that_reaches_beyond_is_refused(ca: SessionCa, rules: list[str], says: str) -> None:
    with pytest.raises(PolicyError, match=says):
        check_coverage(policy(*rules), ca)


def test_a_default_of_allow_reaches_beyond() -> None:
    with pytest.raises(
        PolicyError, match=r"default: the name constraints of CN=ca permit only example.com; write 'deny'"
    ):
        check_coverage(policy(default="allow"), constrained(["example.com"]))


def test_an_exclusion_within_an_allowed_domain_is_a_warning() -> None:
    (found,) = check_coverage(policy("allow: ['**.example.com']"), constrained(["example.com"], ["secret.example.com"]))

    assert "'**.example.com' holds secret.example.com, which" in str(found)


def test_constraints_with_a_star_refuse_no_policy_but_warn() -> None:
    (found,) = check_coverage(policy("allow: [registry.redhat.com]"), constrained(["*.redhat.com"], ["*"]))

    assert "permit only *.redhat.com (a '*' in a name constraint is no wildcard)" in str(found)


@pytest.mark.parametrize(
    "host", ["api.example.com", "www.example.org", "a.b.example.org", "10.1.2.3", "trust.egress.internal"]
)
def test_a_ca_that_was_made_for_a_policy_serves_it(host: str) -> None:
    made_for = policy("allow: [api.example.com, '**.example.org', 10.0.0.0/8]")
    ca = issue_session_ca(common_name="s", now=NOW, constraints=constraints_for(made_for), two_tier=True)

    assert check_coverage(made_for, ca) == ()
    LeafMinter(ca, lambda: NOW).mint(parse_host(host))
    assert LeafMinter(ca, lambda: NOW).refusal(parse_host("example.com")) is not None
    assert LeafMinter(ca, lambda: NOW).refusal(parse_host("2001:db8::1")) is not None
