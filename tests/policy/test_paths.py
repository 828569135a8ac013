"""Paths: the readings of a request's path, and what an allow and a deny rule make of them."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.hosts import parse_host
from sidecar.policy import judge_request, parse_policy
from sidecar.policy.paths import PathError, normalise, parse_path

HOST = parse_host("example.com")


def allowed(rule_path: str, path: str) -> bool:
    policy = parse_policy(f"version: 1\nrules: [{{allow: [example.com], paths: ['{rule_path}']}}]")
    return judge_request(policy, HOST, 443, "GET", path).allowed


def denied(rule_path: str, path: str) -> bool:
    policy = parse_policy(f"version: 1\ndefault: allow\nrules: [{{deny: [example.com], paths: ['{rule_path}']}}]")
    return not judge_request(policy, HOST, 443, "GET", path).allowed


@pytest.mark.parametrize(
    ("path", "texts"),
    [
        pytest.param("/a/b", ["/a/b"], id="a plain path has one reading"),
        pytest.param("/a/b?c=/../d", ["/a/b"], id="the query is ignored"),
        pytest.param("/a/b/", ["/a/b"], id="a trailing slash makes no difference"),
        pytest.param("", ["/"], id="an empty path is the root"),
        pytest.param("*", ["/"], id="the asterisk form is the root"),
        pytest.param("/%7eme/%41%2d%40x", ["/~me/A-@x"], id="escapes that need none are decoded"),
        pytest.param("/b%c3%bccher", ["/b%C3%BCcher"], id="other escapes are in upper case"),
        pytest.param("/bücher", ["/b%C3%BCcher"], id="raw octets are escaped"),
        pytest.param("/a/./b/../c", ["/a/c"], id="dot segments are removed"),
        pytest.param("/%2e%2E/a/%2e/b", ["/a/b"], id="encoded dot segments are removed"),
        pytest.param("/../../a", ["/a"], id="nothing is above the root"),
        pytest.param("/a%2fb%2fc/../..%2fd", ["/..%2Fd", "/a/d", "/d"], id="steps may be taken one after the other"),
        pytest.param("/a//b", ["/a//b", "/a/b"], id="an empty segment may be kept or not"),
        pytest.param("/a//../b", ["/a/b", "/b"], id="a dot segment may remove an empty one"),
        pytest.param("/a%2fb", ["/a%2Fb", "/a/b"], id="an encoded slash may be a slash"),
        pytest.param("/a\\..\\b", ["/a%5C..%5Cb", "/b"], id="a backslash may be a slash"),
        pytest.param("/a/..%2f..%2fb", ["/a/..%2F..%2Fb", "/b"], id="dot segments may hide behind encoded slashes"),
        pytest.param("/a/..;x=1/b", ["/a/..;x=1/b", "/b"], id="a parameter may hide a dot segment"),
        pytest.param("/a/%252e%252e/b", ["/a/%252e%252e/b", "/b"], id="a double encoding may be decoded"),
        pytest.param("/a%00.png", ["/a%00.png", "/a"], id="a NUL may end the path"),
        pytest.param("/a#b", ["/a#b", "/a"], id="a fragment may end the path"),
        pytest.param("/100%", ["/100%25"], id="a percent sign alone is one"),
        pytest.param("/a/*", ["/a/%2A"], id="an asterisk in a request is no wildcard"),
        pytest.param("example.com:443", [], id="an authority has no reading"),
        pytest.param("http://example.com/", [], id="a URL has no reading"),
        pytest.param("/%" + "25" * 20 + "2e", [], id="endless encoding has no reading"),
        pytest.param("/" + "a" * 9000, ["/" + "a" * 9000], id="a long plain path has its reading"),
        pytest.param("/;" + "a" * 9000, [], id="a long odd path has no reading"),
        pytest.param("/a" * 256, ["/a" * 256], id="a deep path has its reading"),
        pytest.param("/a" * 257, [], id="one that is too deep to compare has none"),
        pytest.param("/\ud800", [], id="what can't be octets has no reading"),
    ],
)  # fmt: skip
def test_the_readings_of_a_path(path: str, texts: list[str]) -> None:
    assert list(normalise(path)) == texts


@pytest.mark.parametrize(
    ("rule_path", "path", "is_allowed"),
    [
        pytest.param("/repos/*", "/repos/a", True, id="a star is one segment"),
        pytest.param("/repos/*", "/repos/a/b", False, id="a star is not two"),
        pytest.param("/repos/*", "/repos/", False, id="a star is not nothing"),
        pytest.param("/repos/**", "/repos/a/b", True, id="two stars are any rest"),
        pytest.param("/repos/**", "/repos", True, id="two stars may be nothing"),
        pytest.param("/repos/**", "/reposx", False, id="a pattern ends at a slash"),
        pytest.param("/**/info/refs", "/o/r.git/info/refs", True, id="two stars may stand in front"),
        pytest.param("/a/**/b/*/c", "/a/b/x/b/y/c", True, id="wildcards find a way"),
        pytest.param("/simple/*/", "/simple/requests", True, id="a trailing slash in a rule makes no difference"),
        pytest.param("/", "/", True, id="the root is a path"),
        pytest.param("/", "/a", False, id="the root is no prefix"),
        pytest.param("/**", "*", True, id="the asterisk form is judged as the root"),
        pytest.param("/a", "/A", False, id="paths are case-sensitive"),
        pytest.param("/a/**", "/a/../b", False, id="dot segments do not lead out of what is allowed"),
        pytest.param("/a/**", "/a/%2e%2e/b", False, id="nor do encoded ones"),
        pytest.param("/a/**", "/a/..%2fb", False, id="nor do encoded slashes"),
        pytest.param("/a/**", "/a/..%5cb", False, id="nor do encoded backslashes"),
        pytest.param("/a/**", "/a/..;/b", False, id="nor do parameters"),
        pytest.param("/a/**", "/a/%252e%252e%252fb", False, id="nor does double encoding"),
        pytest.param("/a/**", "/a//../../b", False, id="nor do empty segments"),
        pytest.param("/a/**", "/a/b%2fc%2fd/../..%2fe", False, id="nor do two servers that take their steps in turn"),
        pytest.param("/b", "/a/../b", True, id="a dot segment that leads to what is allowed is fine"),
        pytest.param("/a/b", "//a/b", False, id="an empty segment must be covered"),
        pytest.param("/**", "/a//b;c/..%2fd", True, id="any rest covers every reading"),
        pytest.param("/a.png", "/a.png%00.exe", False, id="a NUL is not cut off for an allow rule"),
        pytest.param("/@scope%2fname", "/@scope%2fname", True, id="a scoped npm package"),
        pytest.param("/@scope%2fname", "/@scope%2Fname", True, id="escapes are case-insensitive"),
        pytest.param("/@scope%2fname", "/%40scope%2fname", True, id="an at sign may be escaped"),
        pytest.param("/@scope%2fname", "/@scope/name", False, id="an encoded slash in a rule is no plain one"),
        pytest.param("/@scope%2f*", "/@scope%2fname", True, id="a wildcard behind an encoded slash"),
        pytest.param("/@scope%2f*", "/@scope%2f..%2f..%2fx", False, id="such a wildcard leads nowhere else"),
        pytest.param("/@scope%2f*", "/@scope%2fa%2fb", False, id="such a wildcard ends at an encoded slash"),
        pytest.param("/*", "/@scope%2fname", False, id="a star is not what may be two segments"),
        pytest.param("/a;v=1/b", "/a;v=1/b", True, id="parameters that the rule names"),
        pytest.param("/a/b", "/a;v=1/b", False, id="parameters that the rule does not name"),
        pytest.param("/a;v=1/b", "/a/b", False, id="parameters that the request lacks"),
        pytest.param("/a/%2A", "/a/*", True, id="an escaped asterisk in a rule is an asterisk"),
        pytest.param("/bücher", "/b%C3%BCcher", True, id="a rule may be written in letters"),
        pytest.param("/**", "example.com:443", False, id="what is no path matches no allow rule"),
    ],
)  # fmt: skip
def test_an_allow_rule_matches_if_every_reading_does(rule_path: str, path: str, is_allowed: bool) -> None:
    assert allowed(rule_path, path) is is_allowed


@pytest.mark.parametrize(
    ("rule_path", "path", "is_denied"),
    [
        pytest.param("/admin/**", "/admin", True, id="the prefix itself"),
        pytest.param("/admin", "/admin/", True, id="a trailing slash does not evade"),
        pytest.param("/admin/**", "/administrator", False, id="a longer name is another one"),
        pytest.param("/admin/**", "/x/../admin/y", True, id="dot segments do not evade"),
        pytest.param("/admin/**", "/%61dmin/y", True, id="escapes do not evade"),
        pytest.param("/@admin/**", "/%40admin/y", True, id="escapes of delimiters do not evade"),
        pytest.param("/admin/**", "//admin//y", True, id="empty segments do not evade"),
        pytest.param("/admin/users", "/admin%2fusers", True, id="an encoded slash does not evade"),
        pytest.param("/admin/users", "/admin\\users", True, id="a backslash does not evade"),
        pytest.param("/admin/**", "/x/..;/admin/y", True, id="a parameter on a dot segment does not evade"),
        pytest.param("/admin/**", "/admin;x/y", True, id="a parameter does not evade"),
        pytest.param("/admin/**", "/%2561dmin", True, id="double encoding does not evade"),
        pytest.param("/admin", "/admin%00x", True, id="a NUL does not evade"),
        pytest.param("/admin", "/admin#x", True, id="a fragment does not evade"),
        pytest.param("/admin", "/admin%253fx", True, id="a doubly encoded query does not evade"),
        pytest.param("/admin/**", "/%" + "25" * 20 + "61dmin", True, id="what has no reading is denied"),
        pytest.param("/admin/**", "/repos/a", False, id="another path is not denied"),
    ],
)  # fmt: skip
def test_a_deny_rule_matches_if_any_reading_does(rule_path: str, path: str, is_denied: bool) -> None:
    assert denied(rule_path, path) is is_denied


@pytest.mark.parametrize(
    ("text", "instead"),
    [
        pytest.param("repos", "write '/repos'", id="no leading slash"),
        pytest.param("https://a.example/b/c", "write '/b/c'", id="a URL"),
        pytest.param("/a?b=c", "write '/a'", id="a query"),
        pytest.param("/a#b", "write '/a'", id="a fragment"),
        pytest.param("/a/../b", "write '/b'", id="dot segments"),
        pytest.param("/a/%2e%2e/b", "write '/b'", id="encoded dot segments"),
        pytest.param("/a//b", "write '/a/b'", id="an empty segment"),
        pytest.param("/a/b*", "write '/a/*'", id="a star for a part of a segment"),
        pytest.param("/a/***", "write '/a/**'", id="three stars"),
        pytest.param("/a%2f**", "write '/**'", id="two stars behind an encoded slash"),
        pytest.param("/100%", "write '%25'", id="a percent sign alone"),
        pytest.param("/a%00", "%00", id="a NUL"),
    ],
)  # fmt: skip
def test_a_path_pattern_that_can_match_nothing_is_refused_with_its_correction(text: str, instead: str) -> None:
    with pytest.raises(PathError) as caught:
        parse_path(text)

    assert instead in str(caught.value)


SEGMENTS = st.sampled_from(["a", "b", "..", ".", "", "%2e%2e", "a%2fb", "..%5c", "a;x", "..;x", "%252e", "%00", "*"])


@settings(max_examples=300, deadline=None)
@given(st.lists(SEGMENTS, max_size=6).map(lambda parts: "/" + "/".join(parts)))
def test_reading_a_reading_again_leads_nowhere_new(path: str) -> None:
    texts = normalise(path)

    assert texts
    for text in texts:
        assert not {".", ".."} & set(text.split("/"))
        assert set(normalise(text)) <= set(texts)
