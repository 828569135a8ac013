"""Transparent mode: redirected connections arrive with their original destination, and DNS gives names to addresses."""

import hashlib
import logging
import socket
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import Any, cast

from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from mitmproxy import ctx, platform
from mitmproxy.connection import Server as UpstreamConnection
from mitmproxy.proxy import layer, layers
from mitmproxy.proxy.context import Context
from mitmproxy.proxy.mode_servers import AsyncioServerInstance
from mitmproxy.proxy.mode_specs import ProxyMode

from addons.destinations import Destinations
from addons.resolver import Resolver
from sidecar.addresses import SYNTHETIC_V4, SYNTHETIC_V6
from sidecar.events.model import DnsDenied
from sidecar.hosts import IPAddress
from sidecar.names.desk import Desk
from sidecar.names.handed_out import HandedOut
from sidecar.names.policy_rules import PolicyRules
from sidecar.names.questions import Zone
from sidecar.names.search import parse_resolv_conf
from sidecar.names.synthetic import SyntheticNames
from sidecar.names.upstream import Server, Upstream
from sidecar.pki.session_ca import SessionCa
from sidecar.reasons import Reason
from sidecar.runtime.driver import Driver
from sidecar.runtime.listeners import bind, descriptors_of, serving
from sidecar.runtime.session import Session

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class NameSettings:
    """What the resolver is told. Empty ``servers`` leave only synthetic answers."""

    servers: tuple[Server, ...] = ()
    search: tuple[str, ...] = ()
    families: frozenset[int] = frozenset({4, 6})


def loopback() -> tuple[IPAddress, ...]:
    """Where redirected connections arrive: 127.0.0.1, and ::1 where there is IPv6."""
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as probe:
            probe.bind(("::1", 0))
    except OSError:  # no ::1, or a kernel without IPv6
        return (IPv4Address("127.0.0.1"),)
    return IPv4Address("127.0.0.1"), IPv6Address("::1")


def dns_modes(port: int) -> list[str]:
    """
    mitmproxy's modes that serve DNS, UDP and TCP, on the loopback addresses alone.

    Raises:
        CannotRun: The port is taken. mitmproxy binds it itself, later, and would only log why it can't.
    """
    for address in loopback():
        for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
            bind(address, port, "--dns-port", kind).close()
    return [f"dns@{address}:{port}" for address in loopback()]


def names_from_system(servers: Sequence[Server], resolv_conf: Path = Path("/etc/resolv.conf")) -> NameSettings:
    """Upstream resolvers as given, else the pod's own; its search domains; the IP versions that it has."""
    text = ""
    with suppress(OSError):
        text = resolv_conf.read_text(errors="replace")
    conf = parse_resolv_conf(text)
    found = tuple(servers) or tuple(Server(address) for address in conf.nameservers)
    return NameSettings(servers=found, search=conf.search, families=_families())


def _families() -> frozenset[int]:
    """The IP versions with a route to a synthetic address: without one, connect fails before the fence."""
    found = set()
    for version, family, address in ((4, socket.AF_INET, SYNTHETIC_V4[1]), (6, socket.AF_INET6, SYNTHETIC_V6[1])):
        with suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((str(address), 9))  # UDP: nothing is sent
            found.add(version)
    return frozenset(found or {4})


def addons_for_names(session: Session, settings: NameSettings) -> list[object]:
    """The addons that transparent mode needs beside the session's: destinations, and the resolver that makes them."""
    synthetic = SyntheticNames(_key(session.settings.ca), SYNTHETIC_V4, SYNTHETIC_V6, session.settings.limits.dns_names)
    handed_out = HandedOut()
    zone = Zone(search=settings.search, families=settings.families)
    desk = Desk(lambda: PolicyRules(session.policy()), zone, synthetic, handed_out)

    def denied(name: str, type_: str, reason: str, suppressed: int) -> None:
        session.log.emit(DnsDenied(query=name, type=type_, reason=reason, suppressed=suppressed))

    return [
        Destinations(session.policy, session.ledger, synthetic, handed_out, settings.search),
        Resolver(desk, Upstream(settings.servers).ask, denied),
    ]


def _key(ca: SessionCa) -> bytes:
    """Chooses the addresses of names. From the CA's key, so that it is secret, and survives a restart with the CA."""
    private = ca.key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    return hashlib.blake2b(private, digest_size=32, person=b"egress-names").digest()


class RedirectMode(ProxyMode):
    """Redirected TCP on inherited descriptors: ``redirect:7,8``."""

    description = "transparent proxy"
    default_port = None
    transport_protocol: Any = "tcp"

    def __post_init__(self) -> None:
        descriptors_of(self.data)


class RedirectInstance(AsyncioServerInstance[RedirectMode]):
    """Registers itself with mitmproxy by being defined."""

    def make_top_layer(self, context: Context) -> layer.Layer:
        return layers.modes.TransparentProxy(context)

    async def _start(self) -> None:
        self._servers = await serving(self, self._begin)

    def _begin(self, driver: Driver, transport: Any) -> bool:
        destinations = cast(Destinations, ctx.master.addons.get("egress_destinations"))
        ledger, client = destinations.ledger, driver.client
        record = ledger.connection(client.id)
        own = transport.get_extra_info("sockname")[:2]
        try:
            assert platform.original_addr is not None
            original = platform.original_addr(transport.get_extra_info("socket"))
        except OSError:
            original = own
        try:
            if original == own:
                detail = "the connection was not redirected: it was made to the sidecar itself"
                ledger.deny_connection(record, Reason.NOT_REDIRECTED, detail)
                ledger.disconnect(record.id)
                return False
            authority = destinations.claim(client.id, ip_address(original[0]), original[1])
        except Exception as e:
            _log.exception("an original destination could not be judged; refused")
            ledger.internal_error("RedirectInstance._begin", e, record.id, None)
            ledger.deny_connection(record, Reason.INTERNAL_ERROR, "the sidecar failed, and refuses")
            ledger.disconnect(record.id)
            return False
        context = driver.layer.context
        client.sockname = original
        context.server = UpstreamConnection(address=(authority.host.name, authority.port))  # type: ignore[arg-type]
        driver.layer = self.make_top_layer(context)
        return True
