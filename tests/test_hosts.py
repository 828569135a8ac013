"""Hosts and authorities: one form for all spellings, and no form for what is none."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.hosts import Authority, Host, HostError, parse_authority, parse_host


@pytest.mark.parametrize(
    ("text", "name", "is_address"),
    [
        pytest.param("API.Example.COM", "api.example.com", False, id="case makes no difference"),
        pytest.param("api.example.com.", "api.example.com", False, id="a trailing dot makes no difference"),
        pytest.param("bücher.example", "xn--bcher-kva.example", False, id="U-labels become A-labels"),
        pytest.param("BÜCHER.example", "xn--bcher-kva.example", False, id="U-labels have no case"),
        pytest.param("api。example。com", "api.example.com", False, id="an ideographic full stop is a dot"),
        pytest.param("_dmarc.example.com", "_dmarc.example.com", False, id="underscores are served and used"),
        pytest.param("localhost", "localhost", False, id="one label is a name"),
        pytest.param("1.example", "1.example", False, id="a label may be a number, but the last"),
        pytest.param("192.0.2.1", "192.0.2.1", True, id="an IPv4 address"),
        pytest.param("192.0.2.1.", "192.0.2.1", True, id="an IPv4 address with a trailing dot"),
        pytest.param("１９２.0.2.1", "192.0.2.1", True, id="an IPv4 address in wide digits"),
        pytest.param("2001:DB8:0:0::1", "2001:db8::1", True, id="an IPv6 address"),
        pytest.param("[2001:db8::1]", "2001:db8::1", True, id="an IPv6 address in brackets"),
    ],
)
def test_a_host_has_one_form(text: str, name: str, is_address: bool) -> None:
    host = parse_host(text)

    assert (host.name, host.is_address) == (name, is_address)


@pytest.mark.parametrize(
    "text",
    [
        *("", ".", "a..b", ".a", "-a.example", "a-.example", "a" * 64 + ".example", "a." * 127 + "example"),
        *("a b", "a\n", "a\x00b", "a%2eb", "a:80", "u@a", "a/b", "*.example", "a,b", "a\\b", "\ud800.example"),
        *("0x7f.1", "127.1", "2130706433", "0177.0.0.1", "1.2.3.4.5", "256.0.0.1", "1.2.3", "example.0x10"),
        *("fe80::1%eth0", "[::1", "::1]", "[192.0.2.1]", "::g", "[]", "1::2::3"),
    ],
)
def test_what_is_no_host_is_refused(text: str) -> None:
    with pytest.raises(HostError):
        parse_host(text)


@pytest.mark.parametrize(
    ("text", "authority", "again"),
    [
        pytest.param("A.example:443", Authority(Host("a.example"), 443), "a.example:443", id="a name and a port"),
        pytest.param("a.example", Authority(Host("a.example")), "a.example", id="no port"),
        pytest.param("a.example:", Authority(Host("a.example")), "a.example", id="an empty port is none"),
        pytest.param("[::1]:8443", Authority(parse_host("::1"), 8443), "[::1]:8443", id="IPv6 and a port"),
        pytest.param("[::1]", Authority(parse_host("::1")), "[::1]", id="IPv6 without a port"),
        pytest.param("::1", Authority(parse_host("::1")), "[::1]", id="IPv6 without brackets"),
        pytest.param(
            "192.0.2.1:080", Authority(parse_host("192.0.2.1"), 80), "192.0.2.1:80", id="leading zeros of a port"
        ),
    ],
)
def test_an_authority_is_a_host_and_perhaps_a_port(text: str, authority: Authority, again: str) -> None:
    assert parse_authority(text) == authority
    assert str(authority) == again


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":443",
        "a:0",
        "a:65536",
        "a:-1",
        "a:+1",
        "a:1 ",
        "a:٤٤٣",
        "a:1:2",
        "[::1]443",
        "u:p@a:1",
        "https://a",
        "a/b",
    ],
)
def test_what_is_no_authority_is_refused(text: str) -> None:
    with pytest.raises(HostError):
        parse_authority(text)


@settings(max_examples=300, deadline=None)
@given(st.one_of(st.text(max_size=30), st.text("aB-_.0x1:[]。ßüİ", max_size=15)))
def test_normalising_a_host_twice_changes_nothing(text: str) -> None:
    try:
        host = parse_host(text)
    except HostError:
        return

    assert parse_host(host.name) == host


@settings(max_examples=300, deadline=None)
@given(st.one_of(st.text(max_size=30), st.text("a.:[]0123456789@", max_size=15)))
def test_an_authority_is_read_as_it_is_written(text: str) -> None:
    try:
        authority = parse_authority(text)
    except HostError:
        return

    assert parse_authority(str(authority)) == authority
