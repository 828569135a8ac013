from ipaddress import IPv6Address, IPv6Network, ip_address, ip_network

import pytest

from sidecar.addresses import SYNTHETIC_V4, SYNTHETIC_V6, AddressKind, IPNetwork, classify, guard


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        pytest.param("8.8.8.8", AddressKind.GLOBAL, id="an ordinary IPv4 address is global"),
        pytest.param("2606:4700::1111", AddressKind.GLOBAL, id="an ordinary IPv6 address is global"),
        pytest.param("192.31.196.1", AddressKind.GLOBAL, id="AS112 is global (RFC 7535)"),
        pytest.param("0.0.0.0", AddressKind.UNSPECIFIED, id="0.0.0.0, which Linux takes for loopback"),
        pytest.param("0.1.2.3", AddressKind.UNSPECIFIED, id="this network"),
        pytest.param("10.0.0.1", AddressKind.PRIVATE, id="10/8"),
        pytest.param("11.0.0.0", AddressKind.GLOBAL, id="10/8 ends"),
        pytest.param("100.63.255.255", AddressKind.GLOBAL, id="before CGNAT"),
        pytest.param("100.64.0.0", AddressKind.CGNAT, id="CGNAT begins"),
        pytest.param("100.127.255.255", AddressKind.CGNAT, id="CGNAT ends"),
        pytest.param("127.0.0.1", AddressKind.LOOPBACK, id="loopback"),
        pytest.param("127.255.255.254", AddressKind.LOOPBACK, id="all of 127/8 is loopback"),
        pytest.param("169.254.20.10", AddressKind.LINK_LOCAL, id="link-local"),
        pytest.param("172.15.255.255", AddressKind.GLOBAL, id="before 172.16/12"),
        pytest.param("172.31.255.255", AddressKind.PRIVATE, id="172.16/12 ends"),
        pytest.param("192.0.0.9", AddressKind.RESERVED, id="an anycast service is whatever is nearest"),
        pytest.param("192.0.2.1", AddressKind.DOCUMENTATION, id="TEST-NET-1"),
        pytest.param("198.51.100.1", AddressKind.DOCUMENTATION, id="TEST-NET-2"),
        pytest.param("203.0.113.1", AddressKind.DOCUMENTATION, id="TEST-NET-3"),
        pytest.param("192.88.99.1", AddressKind.RESERVED, id="the old 6to4 relay"),
        pytest.param("192.168.1.1", AddressKind.PRIVATE, id="192.168/16"),
        pytest.param("198.18.0.1", AddressKind.SYNTHETIC, id="our IPv4 range"),
        pytest.param("198.19.255.255", AddressKind.SYNTHETIC, id="our IPv4 range ends"),
        pytest.param("198.20.0.0", AddressKind.GLOBAL, id="after our IPv4 range"),
        pytest.param("224.0.0.1", AddressKind.MULTICAST, id="multicast"),
        pytest.param("240.0.0.1", AddressKind.RESERVED, id="class E"),
        pytest.param("255.255.255.255", AddressKind.BROADCAST, id="broadcast"),
        pytest.param("::", AddressKind.UNSPECIFIED, id="::"),
        pytest.param("::1", AddressKind.LOOPBACK, id="::1"),
        pytest.param("fe80::1", AddressKind.LINK_LOCAL, id="IPv6 link-local"),
        pytest.param("fe80::1%eth0", AddressKind.LINK_LOCAL, id="with a zone"),
        pytest.param("fc00::1", AddressKind.PRIVATE, id="unique local, centrally assigned"),
        pytest.param("fdff::1", AddressKind.PRIVATE, id="unique local"),
        pytest.param("fec0::1", AddressKind.PRIVATE, id="site-local"),
        pytest.param("ff02::1", AddressKind.MULTICAST, id="IPv6 multicast"),
        pytest.param("2001:db8::1", AddressKind.DOCUMENTATION, id="IPv6 documentation"),
        pytest.param("3fff::1", AddressKind.DOCUMENTATION, id="IPv6 documentation, the newer one"),
        pytest.param("2001:2::1", AddressKind.BENCHMARKING, id="IPv6 benchmarks"),
        pytest.param("2001:20::1", AddressKind.RESERVED, id="ORCHIDv2"),
        pytest.param("100::1", AddressKind.RESERVED, id="discard-only"),
        pytest.param("5f00::1", AddressKind.RESERVED, id="SRv6 segment identifiers"),
        pytest.param("3ffe::1", AddressKind.RESERVED, id="the 6bone"),
        pytest.param("4000::1", AddressKind.RESERVED, id="outside global unicast"),
        pytest.param(str(SYNTHETIC_V6[1]), AddressKind.SYNTHETIC, id="our IPv6 range"),
    ],
)
def test_classify(text: str, kind: AddressKind) -> None:
    assert classify(ip_address(text)) is kind


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("169.254.169.254", id="most clouds"),
        pytest.param("fd00:ec2::254", id="AWS by IPv6"),
        pytest.param("169.254.170.2", id="AWS ECS"),
        pytest.param("169.254.170.23", id="AWS EKS"),
        pytest.param("fd00:ec2::23", id="AWS EKS by IPv6"),
        pytest.param("fd20:ce::254", id="Google Cloud by IPv6"),
        pytest.param("168.63.129.16", id="Azure's wire server, in a global range"),
        pytest.param("192.0.0.192", id="Oracle Cloud, classic"),
        pytest.param("fd00:c1::a9fe:a9fe", id="Oracle Cloud by IPv6"),
        pytest.param("100.100.100.200", id="Alibaba Cloud, inside CGNAT"),
        pytest.param("fe80::a9fe:a9fe", id="OpenStack by IPv6"),
        pytest.param("::ffff:169.254.169.254", id="mapped"),
        pytest.param("64:ff9b::169.254.169.254", id="behind NAT64"),
    ],
)
def test_a_metadata_service_is_known(text: str) -> None:
    assert classify(ip_address(text)) is AddressKind.METADATA


def _teredo(server: str, client: str) -> str:
    """RFC 4380, section 4: the client's address is stored inverted."""
    bits = 0x20010000 << 96 | int(ip_address(server)) << 64 | int(ip_address(client)) ^ 0xFFFFFFFF
    return str(IPv6Address(bits))


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        pytest.param("::ffff:10.0.0.1", AddressKind.PRIVATE, id="mapped private"),
        pytest.param("::ffff:127.0.0.1", AddressKind.LOOPBACK, id="mapped loopback"),
        pytest.param("::ffff:0.0.0.0", AddressKind.UNSPECIFIED, id="mapped unspecified"),
        pytest.param(
            "::ffff:8.8.8.8", AddressKind.EMBEDDED_IPV4, id="mapped global: rules for 8.8.8.8 wouldn't see it"
        ),
        pytest.param("::127.0.0.1", AddressKind.LOOPBACK, id="compatible loopback"),
        pytest.param("::8.8.8.8", AddressKind.EMBEDDED_IPV4, id="compatible global"),
        pytest.param("::ffff:0:10.0.0.1", AddressKind.PRIVATE, id="translated private"),
        pytest.param("2002:a00:1::1", AddressKind.PRIVATE, id="6to4 private"),
        pytest.param("2002:808:808::1", AddressKind.EMBEDDED_IPV4, id="6to4 global"),
        pytest.param(_teredo("8.8.8.8", "192.168.0.1"), AddressKind.PRIVATE, id="Teredo, private client"),
        pytest.param(_teredo("10.0.0.1", "8.8.8.8"), AddressKind.PRIVATE, id="Teredo, private server"),
        pytest.param(_teredo("8.8.4.4", "8.8.8.8"), AddressKind.EMBEDDED_IPV4, id="Teredo, both global"),
        pytest.param("64:ff9b::10.0.0.1", AddressKind.PRIVATE, id="NAT64 private"),
        pytest.param(
            "64:ff9b::8.8.8.8", AddressKind.GLOBAL, id="NAT64 global: every IPv4 upstream of an IPv6-only pod"
        ),
        pytest.param("64:ff9b:1::127.0.0.1", AddressKind.LOOPBACK, id="local NAT64 loopback"),
        pytest.param("64:ff9b:1::8.8.8.8", AddressKind.EMBEDDED_IPV4, id="local NAT64 global"),
        pytest.param("2606:4700::5efe:10.0.0.1", AddressKind.PRIVATE, id="ISATAP private"),
        pytest.param("2606:4700::200:5efe:10.0.0.1", AddressKind.PRIVATE, id="ISATAP private, universal bit"),
        pytest.param("2606:4700::5efe:8.8.8.8", AddressKind.GLOBAL, id="ISATAP global in a global prefix"),
        pytest.param("fe80::5efe:8.8.8.8", AddressKind.LINK_LOCAL, id="ISATAP global in a local prefix"),
    ],
)
def test_an_embedded_ipv4_address_counts(text: str, kind: AddressKind) -> None:
    assert classify(ip_address(text)) is kind


def _networks(*texts: str) -> tuple[IPNetwork, ...]:
    return tuple(map(ip_network, texts))


@pytest.mark.parametrize(
    ("text", "allowed", "refused_as"),
    [
        pytest.param("8.8.8.8", (), None, id="global needs no exception"),
        pytest.param("10.20.0.1", (), AddressKind.PRIVATE, id="private is refused"),
        pytest.param("10.20.0.1", ("10.20.0.0/16",), None, id="an exception covers it"),
        pytest.param("10.21.0.1", ("10.20.0.0/16", "fd00::/8"), AddressKind.PRIVATE, id="but not its neighbour"),
        pytest.param("127.0.0.1", ("127.0.0.0/8",), None, id="loopback can be excepted"),
        pytest.param("::ffff:10.20.0.1", ("10.20.0.0/16",), AddressKind.PRIVATE, id="only as it is written"),
        pytest.param("64:ff9b::10.20.0.1", ("10.20.0.0/16",), AddressKind.PRIVATE, id="also behind NAT64"),
        pytest.param("64:ff9b::10.20.0.1", ("64:ff9b::10.20.0.0/112",), None, id="an IPv6 exception covers that"),
        pytest.param("169.254.169.254", ("169.254.0.0/16",), AddressKind.METADATA, id="a range doesn't mean metadata"),
        pytest.param("fd00:ec2::254", ("fc00::/7",), AddressKind.METADATA, id="nor by all unique local addresses"),
        pytest.param("169.254.169.254", ("169.254.169.254/32",), None, id="but by its own address"),
        pytest.param("10.20.0.9", ("10.20.0.0/16",), AddressKind.OWN, id="the pod's own isn't meant by a range"),
        pytest.param("10.20.0.9", ("10.20.0.9/32",), None, id="the pod's own can be named"),
        pytest.param("2606:4700::9", (), AddressKind.OWN, id="the pod's own is refused though global"),
    ],
)  # fmt: skip
def test_guard(text: str, allowed: tuple[str, ...], refused_as: AddressKind | None) -> None:
    own = {ip_address("10.20.0.9"), ip_address("2606:4700::9")}

    assert guard(ip_address(text), _networks(*allowed), own) is refused_as


def test_the_synthetic_ranges_are_not_of_the_internet() -> None:
    assert ip_network("198.18.0.0/15") == SYNTHETIC_V4
    assert SYNTHETIC_V6.subnet_of(IPv6Network("fd00::/8"))
    assert SYNTHETIC_V6.prefixlen <= 64
