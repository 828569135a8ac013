"""Addresses and names of the matrix: where an attacker wants to get to, and where policy lets it."""

from ipaddress import ip_address
from typing import Final

from sidecar.addresses import SYNTHETIC_V4, SYNTHETIC_V6
from sidecar.hosts import IPAddress
from tests.live.pod import INTERNET_V4, INTERNET_V6, POD_V4

V4, V6 = INTERNET_V4[0], INTERNET_V6[0]
OTHER_V6: Final = INTERNET_V6[1]
RESOLVER_V4, RESOLVER_V6 = INTERNET_V4[2], INTERNET_V6[2]

# The hosts that policy allows have these for themselves: a packet to anywhere else is an escape.
ALLOWED_V4, ALLOWED_V6 = "203.0.113.30", "2001:db8:113::30"

# What the Internet has beside that, so that an attack without the fence arrives.
PRIVATE_V4, PRIVATE_V6 = "10.20.0.5", "fd12:3456::5"
METADATA_V4, METADATA_V6 = "169.254.169.254", "fd00:ec2::254"
CGNAT: Final = "100.64.0.1"
NAT64, NAT64_PRIVATE = "64:ff9b::203.0.113.10", "64:ff9b::10.20.0.5"
SIX_TO_FOUR: Final = "2002:cb00:710a::1"
UNKNOWN_SYNTHETIC_V4, UNKNOWN_SYNTHETIC_V6 = str(SYNTHETIC_V4[1799]), str(SYNTHETIC_V6[1799])
ELSEWHERE: Final = (
    *(ALLOWED_V4, ALLOWED_V6, PRIVATE_V4, PRIVATE_V6, METADATA_V4, METADATA_V6, CGNAT),
    *(NAT64, NAT64_PRIVATE, SIX_TO_FOUR, UNKNOWN_SYNTHETIC_V4, UNKNOWN_SYNTHETIC_V6),
)

ALLOWED, ALSO_ALLOWED, PASSTHROUGH = "api.example.com", "www.example.com", "pinned.example.com"
DENIED, REBIND = "denied.example.com", "rebind.example.com"  # of the second, the names below it
UNDER_WILDCARD: Final = "wild.example.com"  # all names below it are allowed

# Allowed by name, but their owner lets them lead where nobody may go.
GUARDED: Final = {
    "private.guarded.example.com": PRIVATE_V4,
    "private6.guarded.example.com": PRIVATE_V6,
    "metadata.guarded.example.com": METADATA_V4,
    "metadata6.guarded.example.com": METADATA_V6,
    "cgnat.guarded.example.com": CGNAT,
    "nat64.guarded.example.com": NAT64_PRIVATE,
    "mapped.guarded.example.com": f"::ffff:{PRIVATE_V4}",
    "synthetic.guarded.example.com": UNKNOWN_SYNTHETIC_V4,
    "loopback.guarded.example.com": "127.0.0.1",
    "loopback6.guarded.example.com": "::1",
    "unspecified.guarded.example.com": "0.0.0.0",
    "own.guarded.example.com": str(POD_V4),
}

POLICY: Final = f"""
version: 1
rules:
  - allow: ["*.{REBIND}"]
    dns: real
  - allow: ["{ALLOWED}", "{ALSO_ALLOWED}", "**.{UNDER_WILDCARD}"]
  - passthrough: ["{PASSTHROUGH}"]
  - allow: ["**.guarded.example.com"]
    ports: [80, 443, 14102, 14120]
network:
  allow_addresses: ["203.0.113.0/24", "198.51.100.0/24", "2001:db8::/32"]  # the Internet of these tests
"""


def addresses_of(name: str) -> tuple[IPAddress, ...]:
    """What the Internet's resolver answers; every name has an address."""
    if name in GUARDED:
        return (ip_address(GUARDED[name]),)
    if name in (ALLOWED, ALSO_ALLOWED, PASSTHROUGH) or name.endswith((f".{REBIND}", f".{UNDER_WILDCARD}")):
        return ip_address(ALLOWED_V4), ip_address(ALLOWED_V6)
    return ip_address(V4), ip_address(V6)
