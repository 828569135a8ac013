from ipaddress import ip_network
from typing import Any

import pytest

from sidecar.addresses import SYNTHETIC_V6
from sidecar.netfilter.ruleset import Ruleset, RulesetError, routes


def test_one_transaction_replaces_what_was_there() -> None:
    lines = Ruleset().text().splitlines()

    assert lines[:3] == [
        "add table inet egress_sidecar",
        "delete table inet egress_sidecar",
        "table inet egress_sidecar {",
    ]


def test_the_same_parameters_give_the_same_text() -> None:
    assert Ruleset().text() == Ruleset().text()


def test_what_no_rule_accepts_is_dropped() -> None:
    assert "type filter hook output priority 0; policy drop;" in Ruleset().text()


def test_each_exemption_is_a_rule_with_a_comment_in_both_chains() -> None:
    text = Ruleset(exclude_cidrs=(ip_network("10.0.0.0/8"), ip_network("2001:db8::/32")), exclude_ports=(5432,)).text()

    for rule in ("ip daddr 10.0.0.0/8", "ip6 daddr 2001:db8::/32", "meta l4proto { tcp, udp } th dport 5432"):
        assert text.count(f'{rule} accept comment "operator\'s exemption"') == 2, rule


def test_an_exempt_network_does_not_open_port_53() -> None:
    rules = Ruleset(exclude_cidrs=(ip_network("10.0.0.0/8"),)).text()

    assert rules.index("udp dport 53 redirect") < rules.index("ip daddr 10.0.0.0/8")


def test_an_exempt_network_does_not_open_the_synthetic_addresses_in_it() -> None:
    rules = Ruleset(exclude_cidrs=(ip_network("fd00::/8"),)).text()

    assert f"ip6 daddr fd00::/8 ip6 daddr != {SYNTHETIC_V6} accept" in rules


def test_an_exempt_port_may_be_53() -> None:
    rules = Ruleset(exclude_ports=(53,)).text()

    assert rules.index("th dport 53 accept") < rules.index("udp dport 53 redirect")


@pytest.mark.parametrize(
    ("parameters", "says"),
    [
        pytest.param({"sidecar_uid": 0}, "UID can't be 0", id="root is the workload's, too"),
        pytest.param({"sidecar_uid": 2**32 - 1}, "UID can't be 4294967295", id="no user has the last number"),
        pytest.param({"transparent_port": 0}, "0 is not a port", id="port 0"),
        pytest.param({"exclude_ports": (65536,)}, "65536 is not a port", id="port too large"),
        pytest.param({"dns_port": 14100}, "must differ", id="two listeners on one port"),
        pytest.param({"exclude_cidrs": (ip_network("0.0.0.0/0"),)}, "exempts everything", id="exempting IPv4"),
        pytest.param({"exclude_cidrs": (ip_network("::/0"),)}, "exempts everything", id="exempting IPv6"),
        pytest.param({"exclude_cidrs": (ip_network("198.18.7.0/24"),)}, "synthetic", id="exempting names"),
        pytest.param({"exclude_cidrs": (SYNTHETIC_V6,)}, "synthetic", id="exempting names by IPv6"),
    ],
)
def test_a_fence_that_would_not_hold_is_refused(parameters: dict[str, Any], says: str) -> None:
    with pytest.raises(RulesetError, match=says):
        Ruleset(**parameters)


def test_routes_are_given_for_the_families_that_are_asked_for() -> None:
    assert [arguments[0] for arguments in routes(ipv4=True, ipv6=True)] == ["-4", "-6"]
    assert [arguments[0] for arguments in routes(ipv4=False, ipv6=True)] == ["-6"]
    assert routes(ipv4=False, ipv6=False) == ()
