"""Host patterns: which are valid, what they match, and that the index agrees with them."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.hosts import parse_host
from sidecar.policy.index import build_index
from sidecar.policy.patterns import PatternError, parse_pattern


@pytest.mark.parametrize(
    ("pattern", "host", "matches"),
    [
        pytest.param("api.example.com", "API.Example.COM.", True, id="case and a trailing dot make no difference"),
        pytest.param("API.Example.com.", "api.example.com", True, id="nor do they in a pattern"),
        pytest.param("api.example.com", "x.api.example.com", False, id="a name covers no subdomain"),
        pytest.param("*.example.com", "a.example.com", True, id="a star is one label"),
        pytest.param("*.example.com", "a.b.example.com", False, id="a star is not two labels"),
        pytest.param("*.example.com", "example.com", False, id="a star does not cover the apex"),
        pytest.param("**.example.com", "a.b.example.com", True, id="two stars are any number of labels"),
        pytest.param("**.example.com", "a.example.com", True, id="two stars are one label"),
        pytest.param("**.example.com", "example.com", False, id="two stars do not cover the apex"),
        pytest.param("**.example.com", "evilexample.com", False, id="a suffix ends at a dot"),
        pytest.param("**", "com", True, id="two stars alone are any name"),
        pytest.param("**", "192.0.2.1", False, id="two stars alone are no IPv4 address"),
        pytest.param("**", "::1", False, id="two stars alone are no IPv6 address"),
        pytest.param("*", "localhost", True, id="a star alone is a name of one label"),
        pytest.param("*", "a.b", False, id="a star alone is no longer name"),
        pytest.param("api.*.example.com", "api.v1.example.com", True, id="a star in the middle is one label"),
        pytest.param("api.*.example.com", "api.example.com", False, id="a star in the middle is not nothing"),
        pytest.param("api.**.example.com", "api.v1.v2.example.com", True, id="two stars in the middle are many labels"),
        pytest.param("api.**.example.com", "api.example.com", False, id="two stars in the middle are not nothing"),
        pytest.param("**.a.**.b", "x.a.a.a.y.b", True, id="two runs find a way"),
        pytest.param("*.bücher.example", "a.xn--bcher-kva.example", True, id="IDNA is normalised beside a wildcard"),
        pytest.param("*。example。com", "a.example.com", True, id="ideographic full stops are dots"),
        pytest.param("192.0.2.1", "192.0.2.1", True, id="an address matches itself"),
        pytest.param("[2001:DB8::1]", "2001:db8:0::1", True, id="an IPv6 address matches its other spellings"),
        pytest.param("10.0.0.0/8", "10.255.0.1", True, id="a network holds its addresses"),
        pytest.param("10.0.0.0/8", "::ffff:10.0.0.1", False, id="a mapped address is not in an IPv4 network"),
        pytest.param("fd00::/8", "fd12::1", True, id="an IPv6 network holds its addresses"),
        pytest.param("0.0.0.0/0", "example.com", False, id="no network holds a name"),
    ],
)  # fmt: skip
def test_a_pattern_matches_what_it_says(pattern: str, host: str, matches: bool) -> None:
    parsed, target = parse_pattern(pattern), parse_host(host)
    index = build_index([[parsed]])

    assert parsed.matches(target) is matches
    found = index.of_name(target.name) if target.address is None else index.of_address(target.address)
    assert list(found) == ([0] if matches else [])


@pytest.mark.parametrize(
    ("pattern", "instead"),
    [
        pytest.param("*example.com", "write 'example.com' or '*.example.com'", id="a star in front of a name"),
        pytest.param("**example.com", "write 'example.com' or '**.example.com'", id="two stars in front of a name"),
        pytest.param("api-*.example.com", "write '*.example.com'", id="a star for a part of a label"),
        pytest.param("*-cdn.example.com", "write '*.example.com'", id="a star before a hyphen"),
        pytest.param("***.example.com", "write '**.example.com'", id="three stars"),
        pytest.param(".example.com", "write '*.example.com' for one label or '**.example.com'", id="a leading dot"),
        pytest.param("a..b", "one dot between two labels", id="an empty label"),
        pytest.param("*..b", "one dot between two labels", id="an empty label beside a wildcard"),
        pytest.param("https://a.example/x?y", "write 'a.example', and paths: ['/x']", id="a URL"),
        pytest.param("https://a.example:8443", "write 'a.example', and ports: [8443]", id="a URL with a port"),
        pytest.param("a.example/x", "write 'a.example', and paths: ['/x']", id="a path"),
        pytest.param("a.example:443", "write 'a.example' here and ports: [443]", id="a port"),
        pytest.param("*.example:443", "write '*.example' here and ports: [443]", id="a port behind a wildcard"),
        pytest.param("[::1]:443", "write '::1' here and ports: [443]", id="a port behind an IPv6 address"),
        pytest.param("10.1.2.3/8", "write '10.0.0.0/8' for the network or '10.1.2.3'", id="host bits"),
        pytest.param("10.0.0.0/33", "is not a network", id="a prefix that is too long"),
        pytest.param("10.*.*.*", "write a network, such as '10.0.0.0/8'", id="wildcards in an address"),
        pytest.param("0x7f.1", "four decimal numbers", id="an address in another spelling"),
        pytest.param("user@a.example", "write 'a.example'", id="user information"),
        pytest.param(" a.example", "write 'a.example'", id="white space around it"),
        pytest.param("", "such as 'api.example.com'", id="nothing"),
        pytest.param("a.example\n", "white space", id="a line feed at the end"),
        pytest.param("*.ex ample.com", "no host name", id="a space inside"),
        pytest.param("*." + "a" * 64, "no host name", id="a label that is too long"),
    ],
)  # fmt: skip
def test_a_pattern_that_can_match_nothing_is_refused_with_its_correction(pattern: str, instead: str) -> None:
    with pytest.raises(PatternError) as caught:
        parse_pattern(pattern)

    assert instead in str(caught.value)


@pytest.mark.parametrize(
    ("wider", "narrower", "covers"),
    [
        ("**", "*.example.com", True),
        ("**.example.com", "*.example.com", True),
        ("**.example.com", "**.a.example.com", True),
        ("*.example.com", "**.example.com", False),
        ("*.example.com", "a.example.com", True),
        ("**.example.com", "example.com", False),
        ("api.**.com", "api.*.example.com", True),
        ("10.0.0.0/8", "10.1.0.0/16", True),
        ("10.1.0.0/16", "10.0.0.0/8", False),
        ("10.0.0.0/8", "fd00::/8", False),
        ("**", "10.0.0.0/8", False),
    ],
)
def test_one_pattern_covers_another(wider: str, narrower: str, covers: bool) -> None:
    assert parse_pattern(wider).covers(parse_pattern(narrower)) is covers


LABELS = st.lists(st.sampled_from(["a", "b", "*", "**"]), min_size=1, max_size=5).map(".".join)
NAMES = st.lists(st.sampled_from(["a", "b"]), min_size=1, max_size=5).map(".".join)


@settings(max_examples=200, deadline=None)
@given(st.lists(LABELS, max_size=6), NAMES)
def test_the_index_finds_what_asking_each_pattern_finds(texts: list[str], name: str) -> None:
    patterns = [parse_pattern(text) for text in texts]

    found = build_index([pattern] for pattern in patterns).of_name(name)

    assert list(found) == [i for i, pattern in enumerate(patterns) if pattern.matches(parse_host(name))]


@settings(max_examples=200, deadline=None)
@given(LABELS, LABELS, NAMES)
def test_what_covers_a_pattern_matches_all_that_it_matches(wider: str, narrower: str, name: str) -> None:
    host = parse_host(name)

    if parse_pattern(wider).covers(parse_pattern(narrower)) and parse_pattern(narrower).matches(host):
        assert parse_pattern(wider).matches(host)
