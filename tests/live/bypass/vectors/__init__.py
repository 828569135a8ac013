"""All attempts, by what they abuse; the order is that of the table."""

from typing import Final

from tests.live.bypass.vector import Vector
from tests.live.bypass.vectors import (
    addresses,
    datagrams,
    framing,
    identity,
    names,
    packets,
    ports,
    processes,
    proxy,
    raw,
    tls,
)

SECTIONS: Final[dict[str, tuple[Vector, ...]]] = {
    "Addresses": addresses.VECTORS,
    "TCP that is no HTTP": raw.VECTORS,
    "UDP": datagrams.VECTORS,
    "Packets and socket options": packets.VECTORS,
    "DNS": names.VECTORS,
    "TLS": tls.VECTORS,
    "One proven destination": identity.VECTORS,
    "HTTP framing": framing.VECTORS,
    "The sidecar's own ports": ports.VECTORS,
    "The explicit proxy, and where names lead": proxy.VECTORS,
    "Processes": processes.VECTORS,
}
