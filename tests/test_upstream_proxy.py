"""The upstream proxy's URL, exceptions, credentials and answers."""

import pytest

from sidecar.hosts import parse_authority, parse_host
from sidecar.reasons import Reason
from sidecar.upstream_proxy import (
    NotThrough,
    UpstreamProxyError,
    parse_no_proxy,
    parse_upstream_proxy,
    stands_for,
)

PROXY = parse_upstream_proxy("http://proxy.test:3128")
TARGET = parse_authority("api.example.com:443")


@pytest.mark.parametrize(
    ("url", "parsed"),
    [
        pytest.param("http://proxy.test:3128", "http://proxy.test:3128", id="a name and a port"),
        pytest.param("HTTPS://Proxy.Test:443/", "https://proxy.test:443", id="any case, and an empty path"),
        pytest.param("http://[2001:db8::1]:8080", "http://[2001:db8::1]:8080", id="an IPv6 address"),
    ],
)
def test_a_url_is_normalised(url: str, parsed: str) -> None:
    assert str(parse_upstream_proxy(url)) == parsed


@pytest.mark.parametrize(
    "url",
    [
        pytest.param("proxy.test:3128", id="no scheme"),
        pytest.param("http://proxy.test", id="no port, for which every program has another default"),
        pytest.param("socks5://proxy.test:1080", id="not an HTTP proxy"),
        pytest.param("http://proxy.test:3128/path", id="a path"),
        pytest.param("http://:3128", id="no host"),
        pytest.param("http://2130706433:3128", id="an address in decimal"),
    ],
)
def test_another_url_is_refused_with_the_right_form(url: str) -> None:
    with pytest.raises(UpstreamProxyError, match=r"write 'http://proxy\.example\.com:3128'"):
        parse_upstream_proxy(url)


def test_a_password_in_the_url_is_refused_and_not_repeated() -> None:
    with pytest.raises(UpstreamProxyError, match="--upstream-proxy-credentials FILE") as caught:
        parse_upstream_proxy("http://user:hunter2@proxy.test:3128")
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("hunter2", id="no colon"),
        pytest.param("", id="an empty file"),
        pytest.param("user:hunter2\r\nX-Evil: 1", id="a second line"),
    ],
)
def test_malformed_credentials_are_refused_and_not_repeated(text: str) -> None:
    with pytest.raises(UpstreamProxyError, match="one line user:password") as caught:
        parse_upstream_proxy("http://proxy.test:1", credentials=text)
    assert "hunter2" not in str(caught.value)


def test_credentials_are_sent_and_never_shown() -> None:
    proxy = parse_upstream_proxy("http://proxy.test:1", credentials="Aladdin:open sesame\n")

    assert b"\r\nProxy-Authorization: Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==\r\n" in proxy.connect(TARGET)
    assert "QWxh" not in repr(proxy) + str(proxy)


def test_connect_names_the_target_twice() -> None:
    assert PROXY.connect(TARGET) == b"CONNECT api.example.com:443 HTTP/1.1\r\nHost: api.example.com:443\r\n\r\n"


@pytest.mark.parametrize(
    ("entries", "host", "direct"),
    [
        pytest.param("local.com", "local.com", True, id="a name is itself"),
        pytest.param("local.com", "www.local.com", True, id="and all below it"),
        pytest.param("local.com", "www.notlocal.com", False, id="by labels, not by letters"),
        pytest.param(".local.com", "local.com", True, id="a leading dot changes nothing"),
        pytest.param("LOCAL.com.", "a.local.COM", True, id="case and trailing dot change nothing"),
        pytest.param("10.0.0.0/8", "10.1.2.3", True, id="an address in a network"),
        pytest.param("10.0.0.0/8", "11.1.2.3", False, id="an address beside it"),
        pytest.param("10.0.0.0/8", "ten.example.com", False, id="a name isn't in any network"),
        pytest.param("192.0.2.1,[2001:db8::1]", "2001:db8::1", True, id="an IPv6 address, with brackets or without"),
        pytest.param("a.test b.test, c.test", "b.test", True, id="separated by commas or spaces"),
        pytest.param("*", "anything.test", True, id="a star is everything"),
        pytest.param("*", "192.0.2.1", True, id="addresses, too"),
        pytest.param("", "anything.test", False, id="an empty list is nothing"),
    ],
)
def test_no_proxy(entries: str, host: str, direct: bool) -> None:
    assert (parse_host(host) in parse_no_proxy([entries])) is direct


@pytest.mark.parametrize("entry", ["local.com:443", "*.local.com", "10.0.0.0/99", "http://local.com"])
def test_what_no_proxy_doesn_t_know_is_refused(entry: str) -> None:
    with pytest.raises(UpstreamProxyError, match="is neither a host nor a network"):
        parse_no_proxy([f"good.test,{entry}"])


@pytest.mark.parametrize(
    ("host", "address"),
    [
        pytest.param("10.0.0.1", "10.0.0.1", id="an address is itself"),
        pytest.param("localhost", "127.0.0.1", id="localhost is loopback wherever it is resolved"),
        pytest.param("a.localhost", "127.0.0.1", id="and so is all below it"),
        pytest.param("notlocalhost", None, id="other names aren't known here"),
    ],
)
def test_what_a_destination_stands_for(host: str, address: str | None) -> None:
    found = stands_for(parse_host(host))
    assert (None if found is None else str(found)) == address


@pytest.mark.parametrize(
    ("received", "rest"),
    [
        pytest.param(b"HTTP/1.1 200 Connection established\r\nVia: x\r\n\r\n", b"", id="through"),
        pytest.param(b"HTTP/1.0 200\r\n\r\nSSH-2.0-", b"SSH-2.0-", id="a destination that speaks first"),
        pytest.param(b"HTTP/1.1 200 OK\r\nVia: x\r\n", None, id="not yet complete"),
    ],
)
def test_an_answer_that_lets_through(received: bytes, rest: bytes | None) -> None:
    assert PROXY.answer(received, TARGET) == rest


@pytest.mark.parametrize(
    ("received", "reason", "says"),
    [
        pytest.param(
            b"HTTP/1.1 407 Nope\r\n\r\n", Reason.UPSTREAM_PROXY, "wants credentials (407 Nope)", id="no credentials",
        ),
        pytest.param(
            b"HTTP/1.1 403 Nope\r\n\r\n", Reason.UPSTREAM_PROXY, "refuses CONNECT api.example.com:443: 403 Nope",
            id="a refusal",
        ),
        pytest.param(
            b"HTTP/1.1 504 Late\r\n\r\n", Reason.UPSTREAM_UNREACHABLE, "api.example.com:443 can't be reached through",
            id="the destination's failure isn't the proxy's",
        ),
        pytest.param(
            b"SSH-2.0-x\r\n\r\n", Reason.UPSTREAM_PROXY, "doesn't answer CONNECT with HTTP", id="no HTTP at all",
        ),
        pytest.param(
            b"HTTP/1.1 101 Switching\r\n\r\n", Reason.UPSTREAM_PROXY, "refuses CONNECT", id="another protocol",
        ),
        pytest.param(
            b"HTTP/1.1 200 OK\r\n" + b"x" * 70_000, Reason.UPSTREAM_PROXY, "more than 64 KiB",
            id="a head without end",
        ),
    ],
)  # fmt: skip
def test_an_answer_that_doesn_t(received: bytes, reason: Reason, says: str) -> None:
    with pytest.raises(NotThrough) as caught:
        PROXY.answer(received, TARGET)
    assert caught.value.failure.reason is reason
    assert says in caught.value.failure.detail


def test_refused_credentials_say_so() -> None:
    proxy = parse_upstream_proxy("http://proxy.test:1", credentials="user:hunter2")
    with pytest.raises(NotThrough, match="refuses the credentials") as caught:
        proxy.answer(b"HTTP/1.1 407 Nope\r\n\r\n", TARGET)
    assert "hunter2" not in str(caught.value)
