"""Options that several subcommands share, each a flag and an ``EGRESS_*`` variable."""

import re
from collections.abc import Iterable
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from sidecar.errors import SidecarError
from sidecar.hosts import IPAddress, parse_authority, parse_host


class LogLevel(StrEnum):
    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class ControlSocketMode(StrEnum):
    """Who may use the control socket: whoever can, can tell the sidecar that its fence holds."""

    OWNER = "0600"
    GROUP = "0660"

    @property
    def bits(self) -> int:
        return int(self.value, 8)


PolicyFile = Annotated[
    Path, typer.Option("--policy", "-p", envvar="EGRESS_POLICY", metavar="FILE", help="The policy (YAML).")
]
UpstreamCa = Annotated[
    Path | None,
    typer.Option(
        envvar="EGRESS_UPSTREAM_CA",
        metavar="FILE",
        help="Verify upstreams with these roots (PEM) alone. Default: certifi's and the system's.",
    ),
]
AddUpstreamCa = Annotated[
    Path | None,
    typer.Option(
        envvar="EGRESS_ADD_UPSTREAM_CA",
        metavar="FILE",
        help="Verify upstreams with these roots (PEM) besides. For single hosts: `upstreams` in the policy.",
    ),
]
Addons = Annotated[
    list[Path] | None,
    typer.Option(
        "--addon",
        envvar="EGRESS_ADDON",
        metavar="FILE",
        help="Run a mitmproxy addon of your own behind the verdict; several: repeat it. Its code runs in the sidecar.",
    ),
]
Resolve = Annotated[
    list[str] | None,
    typer.Option(
        envvar="EGRESS_RESOLVE",
        metavar="NAME:ADDRESS",
        help="Take this address for that name, as curl does; NAME:PORT:ADDRESS, too. Several: repeat it, or separate "
        "them by commas or spaces.",
    ),
]
UpstreamProxyUrl = Annotated[
    str | None,
    typer.Option(
        "--upstream-proxy",
        envvar="EGRESS_UPSTREAM_PROXY",
        metavar="URL",
        help="Reach upstreams through this proxy, by CONNECT: http://HOST:PORT or https://HOST:PORT. Then the proxy "
        "resolves names, and the guard against private addresses can't see to what.",
    ),
]
UpstreamProxyCredentials = Annotated[
    Path | None,
    typer.Option(
        envvar="EGRESS_UPSTREAM_PROXY_CREDENTIALS", metavar="FILE", help="What the proxy wants to know: user:password."
    ),
]
NoProxyList = Annotated[
    list[str] | None,
    typer.Option(
        "--no-proxy",
        envvar="EGRESS_NO_PROXY",
        metavar="LIST",
        help="Hosts, .suffixes, addresses and networks to reach directly, separated by commas. May be repeated.",
    ),
]
TrustBundle = Annotated[
    Path | None,
    typer.Option(
        envvar="EGRESS_TRUST_BUNDLE",
        metavar="FILE",
        help="The workload's trust bundle, as mounted here. A new CA with another root then waits until the bundle has "
        "held both roots for --root-overlap.",
    ),
]
RootOverlap = Annotated[
    int,
    typer.Option(
        envvar="EGRESS_ROOT_OVERLAP",
        min=0,
        metavar="SECONDS",
        help="Counted from when the bundle was first seen to hold both roots.",
    ),
]
EventLevel = Annotated[
    LogLevel, typer.Option(envvar="EGRESS_EVENT_LEVEL", help="Least level of events; debug has request_opened, too.")
]
OwnLogLevel = Annotated[
    LogLevel, typer.Option("--log-level", envvar="EGRESS_LOG_LEVEL", help="Level of the sidecar's own log, on stderr.")
]
DrainSeconds = Annotated[
    float,
    typer.Option(
        envvar="EGRESS_DRAIN_SECONDS",
        min=0,
        metavar="SECONDS",
        help="At a stop, wait so long for requests in flight. A second signal ends it at once.",
    ),
]
IdleSeconds = Annotated[
    int,
    typer.Option(
        envvar="EGRESS_IDLE_SECONDS",
        min=1,
        metavar="SECONDS",
        help="End a connection on which nothing moves for so long.",
    ),
]
LimitList = Annotated[
    list[str] | None,
    typer.Option(
        "--limit",
        envvar="EGRESS_LIMIT",
        metavar="NAME=VALUE",
        help="Set one of the limits that `sidecar limits` lists. Several: repeat it, or separate them by commas or "
        "spaces.",
    ),
]

Transparent = Annotated[
    bool,
    typer.Option(
        "--transparent/--no-transparent",
        envvar="EGRESS_TRANSPARENT",
        help="Take redirected connections and DNS, too (see `sidecar netfilter`).",
    ),
]
TransparentPort = Annotated[
    int,
    typer.Option(
        envvar="EGRESS_TRANSPARENT_PORT", min=1, max=65535, metavar="PORT", help="Where redirected TCP arrives."
    ),
]
DnsPort = Annotated[
    int, typer.Option(envvar="EGRESS_DNS_PORT", min=1, max=65535, metavar="PORT", help="Where redirected DNS arrives.")
]
DnsUpstream = Annotated[
    list[str] | None,
    typer.Option(
        envvar="EGRESS_DNS_UPSTREAM",
        metavar="ADDRESS[:PORT]",
        help="Resolver to ask where the policy says `dns: real`. Several: repeat it, or separate them by commas or "
        "spaces. Default: those of /etc/resolv.conf.",
    ),
]


def words(values: Iterable[str] | None) -> list[str]:
    """Values of an option that may be repeated; commas and spaces separate as well, as they do in manifests."""
    return [word for value in values or () for word in value.replace(",", " ").split()]


def parse_server(text: str) -> tuple[IPAddress, int]:
    """``ADDRESS`` or ``ADDRESS:PORT`` of a resolver, an IPv6 address with a port in brackets."""
    try:
        if text.count(":") > 1 and not text.startswith("["):
            text = f"[{text}]"
        authority = parse_authority(text)
        if authority.host.address is not None:
            return authority.host.address, authority.port or 53
    except SidecarError:
        pass
    raise SidecarError(
        f"--dns-upstream {text!r} isn't ADDRESS or ADDRESS:PORT; write '192.0.2.53' or '[2001:db8::53]:53'"
    )


def parse_listen(text: str) -> tuple[IPAddress, int]:
    """``ADDRESS:PORT``, an IPv6 address in brackets; port 0 lets the system choose."""
    found = re.fullmatch(r"(\[[^\]]*\]|[^:]*):([0-9]{1,5})", text)
    try:
        address = parse_host("127.0.0.1" if found[1] == "localhost" else found[1]).address if found else None
    except SidecarError:
        address = None
    if found is None or address is None or int(found[2]) > 65535:
        raise SidecarError(f"--listen {text!r} isn't ADDRESS:PORT; write '127.0.0.1:14101'")
    return address, int(found[2])


def parse_health_listen(text: str | None) -> tuple[tuple[IPAddress, int] | None, bool]:
    """Where to serve health, None for the usual place; and whether to serve it at all."""
    if text is None or text == "none":
        return None, text is None
    try:
        return parse_listen(text), True
    except SidecarError:
        text = f"--health-listen {text!r} isn't ADDRESS:PORT; write '127.0.0.1:14120', or 'none'"
        raise SidecarError(text) from None
