"""Identity: all claims name the same destination, or the request is refused."""

import pytest

from sidecar.hosts import parse_authority, parse_host
from sidecar.identity import Claims, Mismatch, Proven, prove


def claims_of(authority: str | None, sni: str | None, *hosts: str) -> Claims:
    return Claims(
        parse_authority(authority) if authority else None,
        parse_host(sni) if sni else None,
        tuple(parse_authority(host) for host in hosts),
    )


@pytest.mark.parametrize(
    ("claims", "host", "port"),
    [
        pytest.param(claims_of("a.test:8443", "a.test", "a.test:8443"), "a.test", 8443, id="all claims agree"),
        pytest.param(claims_of("a.test:8443", "a.test", "a.test"), "a.test", 8443, id="a host may lack its port"),
        pytest.param(claims_of("a.test", None, "a.test:443"), "a.test", 443, id="an authority may lack the usual port"),
        pytest.param(claims_of("A.Test.:443", "a.test", "a.TEST"), "a.test", 443, id="spellings of one name are equal"),
        pytest.param(
            claims_of("bücher.test:443", "xn--bcher-kva.test"),
            "xn--bcher-kva.test",
            443,
            id="U-labels and A-labels are equal",
        ),
        pytest.param(claims_of("a.test:80", None), "a.test", 80, id="a request may lack a host"),
        pytest.param(claims_of(None, None, "a.test", "a.test"), "a.test", 443, id="hosts alone decide"),
        pytest.param(
            claims_of(None, None, "a.test:8080", "a.test"), "a.test", 8080, id="the first host's port decides"
        ),
        pytest.param(claims_of(None, "a.test", "a.test"), "a.test", 443, id="an SNI stands for the connection"),
        pytest.param(claims_of("192.0.2.1:443", "192.0.2.1", "192.0.2.1"), "192.0.2.1", 443, id="an address as SNI"),
        pytest.param(
            claims_of("[2001:db8::1]:443", None, "[2001:DB8:0::1]"),
            "2001:db8::1",
            443,
            id="spellings of one address are equal",
        ),
    ],
)
def test_claims_that_agree_prove_a_destination(claims: Claims, host: str, port: int) -> None:
    assert prove(claims, 443) == Proven(parse_host(host), port)


WEB = frozenset({parse_host("web"), parse_host("web.shop")})


@pytest.mark.parametrize(
    ("sni", "host", "proven"),
    [
        pytest.param(None, "web", True, id="a short name as Host"),
        pytest.param("web.shop", "web.shop:443", True, id="a short name as SNI and Host"),
        pytest.param("web", "web.shop.svc.cluster.local", True, id="a short name beside the full one"),
        pytest.param(None, "web:8443", False, id="a short name with another port"),
        pytest.param(None, "db", False, id="another short name"),
        pytest.param("db", "web", False, id="another short name as SNI"),
    ],
)
def test_what_the_pods_search_list_makes_a_name_of_is_that_name(sni: str | None, host: str, proven: bool) -> None:
    full = parse_authority("web.shop.svc.cluster.local:443")
    claims = Claims(full, parse_host(sni) if sni else None, (parse_authority(host),), WEB)

    assert (prove(claims, 443) == Proven(full.host, 443)) is proven


@pytest.mark.parametrize(
    ("claims", "status", "text"),
    [
        pytest.param(
            claims_of("a.test:443", "b.test", "a.test"), 403, "its SNI is b.test", id="SNI and CONNECT differ"
        ),
        pytest.param(
            claims_of("a.test:443", "b.test", "b.test"),
            403,
            "its SNI is b.test",
            id="SNI and Host agree against CONNECT",
        ),
        pytest.param(
            claims_of("a.test:443", "a.test", "b.test"), 421, "the request names b.test", id="a Host names another host"
        ),
        pytest.param(
            claims_of("a.test:443", "a.test", "a.test", "b.test"),
            421,
            "the request names b.test",
            id="a second Host names another host",
        ),
        pytest.param(
            claims_of("a.test:443", "a.test", "a.test:8443"),
            421,
            "the request names a.test:8443",
            id="a Host names another port",
        ),
        pytest.param(
            claims_of("a.test", None, "a.test:8443"), 421, "a.test:8443", id="a Host names another port than the usual"
        ),
        pytest.param(claims_of(None, "a.test", "b.test"), 421, "the SNI is a.test", id="a Host differs from the SNI"),
        pytest.param(
            claims_of(None, None, "a.test", "b.test"),
            421,
            "the request is to a.test",
            id="hosts differ from each other",
        ),
        pytest.param(
            claims_of(None, None, "a.test", "a.test:8080"),
            421,
            "a.test:8080",
            id="a port differs from the first host's",
        ),
        pytest.param(
            claims_of("192.0.2.1:443", "a.test", "a.test"), 403, "its SNI is a.test", id="an address is not a name"
        ),
        pytest.param(
            claims_of("192.0.2.1:443", None, "[::ffff:192.0.2.1]"),
            421,
            "192.0.2.1",
            id="a mapped address is another one",
        ),
        pytest.param(claims_of("a.test:443", None, "x.a.test"), 421, "x.a.test", id="a subdomain is another host"),
        pytest.param(claims_of(None, None), 403, "neither", id="there are no claims"),
    ],
)
def test_claims_that_differ_are_a_mismatch(claims: Claims, status: int, text: str) -> None:
    proof = prove(claims, 443)

    assert isinstance(proof, Mismatch)
    assert (proof.claims, proof.status) == (claims, status)
    assert text in proof.text
