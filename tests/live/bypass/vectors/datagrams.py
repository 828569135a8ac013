"""UDP: refused at once, whatever it carries, so that clients fall back to TCP."""

import socket

from tests.live.bypass import places
from tests.live.bypass.vector import REFUSED, Vector
from tests.live.pod import GATEWAY_LINK_LOCAL, GATEWAY_V4, POD_V6


def _udp(id: str, address: str, port: int, probe: str = "udp", *more: object) -> Vector:
    return Vector(id=id, probe=f"datagrams.{probe}", arguments=(address, port, *more), expected=REFUSED)


VECTORS = (
    _udp("QUIC to an address", places.V4, 443),
    _udp("QUIC to an IPv6 address", places.V6, 443),
    _udp("QUIC to IPv4 mapped into IPv6", f"::ffff:{places.V4}", 443),
    _udp("UDP 80", places.V4, 80),
    _udp("time (UDP 123)", places.V4, 123),
    _udp("IKE (UDP 500)", places.V4, 500),
    _udp("IPsec in UDP (4500)", places.V4, 4500),
    _udp("STUN (UDP 3478)", places.V4, 3478),
    _udp("WireGuard (UDP 51820)", places.V4, 51820),
    _udp("syslog (UDP 514)", places.V6, 514),
    _udp("UDP to the gateway", str(GATEWAY_V4), 443),
    _udp("UDP to the metadata service", places.METADATA_V4, 80),
    _udp("UDP to a private address", places.PRIVATE_V4, 4789),
    _udp("UDP to a synthetic address", places.UNKNOWN_SYNTHETIC_V4, 443),
    _udp("UDP to a synthetic IPv6 address", places.UNKNOWN_SYNTHETIC_V6, 443),
    _udp("QUIC to a denied name", places.DENIED, 443),
    _udp("UDP to a neighbour's link-local address", f"{GATEWAY_LINK_LOCAL}%eth0", 443),
    _udp("connected UDP", places.V4, 443, "connected"),
    _udp("UDP in two calls", places.V4, 443, "corked"),
    _udp("UDP in fragments", places.V4, 443, "fragmented"),
    _udp("UDP in fragments, IPv6", places.V6, 443, "fragmented"),
    _udp("UDP bound to the link", places.V4, 443, "bound"),
    _udp("UDP bound to the link, IPv6", places.V6, 443, "bound"),
    _udp("UDP with the link as ancillary data", places.V4, 443, "by_interface"),
    _udp("UDP with the link as ancillary data, IPv6", places.V6, 443, "by_interface"),
    _udp("UDP with SO_DONTROUTE", str(GATEWAY_V4), 443, "option", socket.SOL_SOCKET, socket.SO_DONTROUTE, 1),
    _udp("UDP with a limited TTL", places.V4, 443, "option", socket.IPPROTO_IP, socket.IP_TTL, 2),
    _udp("a broadcast", "255.255.255.255", 67, "broadcast"),
    _udp("a broadcast to the pod's network", "10.77.0.255", 137, "broadcast"),
    _udp("mDNS", "224.0.0.251", 5353, "multicast"),
    _udp("mDNS by IPv6", "ff02::fb%eth0", 5353, "multicast"),
    _udp("LLMNR", "224.0.0.252", 5355, "multicast"),
    _udp("LLMNR by IPv6", "ff02::1:3%eth0", 5355, "multicast"),
    _udp("SSDP", "239.255.255.250", 1900, "multicast"),
    _udp("UDP-Lite", places.V4, 443, "lite"),
    _udp("UDP-Lite by IPv6", places.V6, 443, "lite"),
    Vector(id="UDP from before the rules", probe="streams.go_on", arguments=("udp4",), expected=REFUSED),
    Vector(id="UDP from before the rules, IPv6", probe="streams.go_on", arguments=("udp6",), expected=REFUSED),
    _udp("from another address (IPV6_FREEBIND)", places.V6, 443, "from_address", places.OTHER_V6, 7777),
    Vector(
        id="an answer to a packet that the pod sent itself in another's name",
        probe="datagrams.reply_to_a_lie",
        arguments=(places.V6, str(POD_V6)),
        expected=REFUSED,
    ),
)
