from ipaddress import ip_address

import pytest

from sidecar.hosts import parse_host
from sidecar.names.outcomes import (
    AskUpstream,
    DnsReason,
    Empty,
    IfExists,
    Keep,
    Loopback,
    Minimal,
    NxDomain,
    Outcome,
    Refuse,
    Reverse,
    Synthesize,
)
from sidecar.names.questions import Zone, judge_question, reverse_address
from sidecar.names.records import Question, Type
from tests.names.rules import Table

RULES = Table(
    allowed=frozenset(
        {
            "ok.example.com",
            "real.example.com",
            "typed.example.com",
            "db.prod.svc.cluster.local",
            "web.dev.svc.cluster.local",
            "real.dev.svc.cluster.local",
            "api.github.com.dev.svc.cluster.local",
            "compose-db",
            "4.3.2.10.in-addr.arpa",
            "anything",
        }
    ),
    real_names=frozenset({"real.example.com", "denied-real.example.com", "real.dev.svc.cluster.local"}),
    typed={
        "typed.example.com": frozenset({Type.TXT, Type.HTTPS, 65280}),
        "denied-typed.example.com": frozenset({Type.TXT}),
        "4.3.2.10.in-addr.arpa": frozenset({Type.PTR}),
        "anything.dev.svc.cluster.local": frozenset({Type.TXT}),
    },
    exact=frozenset({"db.prod.svc.cluster.local", "secret.prod.svc.cluster.local", "compose-db"}),
    below=("dev.svc.cluster.local",),
)
ZONE = Zone(search=("default.svc.cluster.local", "svc.cluster.local", "cluster.local"))


def host(name: str) -> Synthesize:
    return Synthesize(parse_host(name))


def ask(name: str, keep: Keep = Keep.ADDRESSES) -> AskUpstream:
    return AskUpstream(parse_host(name), keep)


@pytest.mark.parametrize(
    ("name", "type_", "outcome"),
    [
        # outside names
        pytest.param("ok.example.com", Type.A, host("ok.example.com"), id="an allowed name is synthesized"),
        pytest.param("evil.test", Type.AAAA, host("evil.test"), id="so is a denied one: that is how its 403 comes"),
        pytest.param("OK.Example.COM.", Type.A, host("ok.example.com"), id="upper case and a trailing dot"),
        pytest.param("real.example.com", Type.A, ask("real.example.com"), id="the truth, where the rule says so"),
        pytest.param("denied-real.example.com", Type.A, host("denied-real.example.com"),
                     id="no query leaves for a denied name, real or not"),
        # names of the pod's own network
        pytest.param("api.github.com.default.svc.cluster.local", Type.A, NxDomain(), id="an expansion"),
        pytest.param("api.github.com.default.svc.cluster.local", Type.TXT, NxDomain(), id="an expansion, another type"),
        pytest.param("api.github.com.default.svc.cluster.local", Type.ANY, NxDomain(), id="an expansion, ANY"),
        pytest.param("cluster.local", Type.A, NxDomain(), id="a search domain itself"),
        pytest.param("db.prod.svc.cluster.local", Type.A, IfExists(parse_host("db.prod.svc.cluster.local")),
                     id="a cluster name that a rule names is asked for first"),
        pytest.param("api.github.com.dev.svc.cluster.local", Type.AAAA,
                     IfExists(parse_host("api.github.com.dev.svc.cluster.local")),
                     id="an expansion under an allowed wildcard, too"),
        pytest.param("secret.prod.svc.cluster.local", Type.A, host("secret.prod.svc.cluster.local"),
                     id="a cluster name denied by its name gets its 403, unasked"),
        pytest.param("x.dev.svc.cluster.local", Type.A, NxDomain(),
                     id="denied by a wildcard it doesn't exist: it may be an outside name's expansion"),
        pytest.param("real.dev.svc.cluster.local", Type.A, ask("real.dev.svc.cluster.local"), id="a real cluster name"),
        pytest.param("anything.dev.svc.cluster.local", Type.TXT, NxDomain(), id="a type for a name that isn't allowed"),
        pytest.param("compose-db", Type.A, IfExists(parse_host("compose-db")), id="a single label that a rule names"),
        pytest.param("anything", Type.A, NxDomain(), id="a single label that only a wildcard allows"),
        # other types
        pytest.param("typed.example.com", Type.TXT, ask("typed.example.com", Keep.RECORDS), id="TXT by a rule"),
        pytest.param("typed.example.com", 65280, ask("typed.example.com", Keep.RECORDS), id="a type without a name"),
        pytest.param("typed.example.com", Type.HTTPS, ask("typed.example.com", Keep.SERVICES), id="HTTPS by a rule"),
        pytest.param("denied-typed.example.com", Type.TXT, Empty(DnsReason.TYPE), id="TXT of a denied name"),
        pytest.param("ok.example.com", Type.TXT, Empty(DnsReason.TYPE), id="TXT without a rule is worth an event"),
        pytest.param("ok.example.com", Type.HTTPS, Empty(), id="HTTPS without a rule isn't"),
        pytest.param("ok.example.com", Type.SVCB, Empty(), id="nor is SVCB"),
        pytest.param("ok.example.com", Type.ANY, Minimal(), id="ANY"),
        pytest.param("ok.example.com", Type.AXFR, Refuse(DnsReason.TYPE), id="a zone transfer"),
        pytest.param("ok.example.com", Type.OPT, Refuse(DnsReason.TYPE), id="OPT as a question"),
        # the sidecar's own
        pytest.param("trust.egress.internal", Type.A, host("trust.egress.internal"), id="the built-in host"),
        pytest.param("trust.egress.internal", Type.TXT, Empty(DnsReason.TYPE), id="the built-in host has addresses"),
        # names of this machine, and of none
        pytest.param("localhost", Type.A, Loopback(), id="localhost"),
        pytest.param("app.localhost", Type.AAAA, Loopback(), id="a name under localhost"),
        pytest.param("localhost", Type.MX, Empty(), id="localhost has addresses only"),
        pytest.param("localhost.default.svc.cluster.local", Type.A, NxDomain(), id="localhost, expanded"),
        pytest.param("a.invalid", Type.A, NxDomain(), id="invalid"),
        pytest.param("a.onion", Type.A, NxDomain(), id="onion"),
        pytest.param("use-application-dns.net", Type.A, NxDomain(), id="the browsers' canary for DNS over HTTPS"),
        pytest.param("", Type.NS, Empty(), id="the root"),
        pytest.param("192.0.2.1", Type.A, NxDomain(), id="an address is no name"),
        # reverse
        pytest.param("7.0.18.198.in-addr.arpa", Type.PTR, Reverse(ip_address("198.18.0.7")), id="PTR"),
        pytest.param("4.3.2.10.in-addr.arpa", Type.PTR, ask("4.3.2.10.in-addr.arpa", Keep.RECORDS), id="PTR by a rule"),
        pytest.param("18.198.in-addr.arpa", Type.PTR, NxDomain(), id="PTR of a part of an address"),
        pytest.param("7.0.18.198.in-addr.arpa", Type.A, NxDomain(), id="A under in-addr.arpa"),
        pytest.param("ipv4only.arpa", Type.AAAA, NxDomain(), id="no NAT64 is claimed (RFC 7050)"),
        pytest.param("_dns.resolver.arpa", Type.SVCB, Empty(), id="no designated resolver (RFC 9462)"),
        # not host names
        pytest.param("a b.example.com", Type.A, Refuse(DnsReason.MALFORMED), id="a space"),
        pytest.param("a\x00.example.com", Type.A, Refuse(DnsReason.MALFORMED), id="a control byte"),
        pytest.param("*.example.com", Type.A, Refuse(DnsReason.MALFORMED), id="a wildcard"),
        pytest.param("a..example.com", Type.A, Refuse(DnsReason.MALFORMED), id="an empty label"),
        pytest.param(f"{'a' * 64}.test", Type.A, Refuse(DnsReason.MALFORMED), id="a label of 64 bytes"),
        pytest.param(".".join(["a" * 63] * 4), Type.A, Refuse(DnsReason.MALFORMED), id="a name of 255 bytes"),
        pytest.param("127.1", Type.A, Refuse(DnsReason.MALFORMED), id="an address in short form"),
    ],
)  # fmt: skip
def test_judge_question(name: str, type_: int, outcome: Outcome) -> None:
    assert judge_question(Question(name, type_), RULES, ZONE) == outcome


def test_classes_other_than_the_internets_are_refused() -> None:
    assert judge_question(Question("version.bind", Type.TXT, 3), RULES, ZONE) == Refuse(DnsReason.CLASS)


@pytest.mark.parametrize(
    ("families", "name", "type_", "outcome"),
    [
        pytest.param({4}, "ok.example.com", Type.AAAA, Empty(), id="AAAA is empty where there is no IPv6"),
        pytest.param({4}, "ok.example.com", Type.A, host("ok.example.com"), id="A isn't"),
        pytest.param({6}, "ok.example.com", Type.A, Empty(), id="A is empty where there is only IPv6"),
        pytest.param({6}, "real.example.com", Type.A, Empty(), id="and not asked for"),
        pytest.param({4}, "db.prod.svc.cluster.local", Type.AAAA, IfExists(parse_host("db.prod.svc.cluster.local")),
                     id="a cluster name is asked for in either, so that both answers agree on NXDOMAIN"),
    ],
)  # fmt: skip
def test_families(families: set[int], name: str, type_: int, outcome: Outcome) -> None:
    assert judge_question(Question(name, type_), RULES, Zone(ZONE.search, frozenset(families))) == outcome


@pytest.mark.parametrize("text", ["192.0.2.1", "198.18.0.7", "::1", "2001:db8::42:1"])
def test_reverse_names_lead_back_to_their_address(text: str) -> None:
    address = ip_address(text)
    assert reverse_address(address.reverse_pointer) == address


@pytest.mark.parametrize(
    "name", ["x.0.18.198.in-addr.arpa", "999.0.18.198.in-addr.arpa", "1.0.ip6.arpa", f"{'g.' * 32}ip6.arpa", "arpa"]
)
def test_what_is_no_reverse_name_is_no_address(name: str) -> None:
    assert reverse_address(name) is None


def test_the_built_in_host_is_there_even_if_a_search_domain_holds_it() -> None:
    zone = Zone(("egress.internal", "internal"), frozenset({4}))
    asked = "trust.egress.internal"

    assert judge_question(Question(asked, Type.A), RULES, zone) == host(asked)
    assert judge_question(Question(asked, Type.AAAA), RULES, zone) == Empty()
