"""One session: what was loaded at start, and the collaborators that the addons share."""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from addons.pool import Pool
from sidecar import __version__
from sidecar.errors import SidecarError
from sidecar.events.log import EventLog, Sink
from sidecar.events.model import CaLoaded, CaRotated, Level, PolicyLoaded, SessionStarted, Summary
from sidecar.hosts import HostError, IPAddress, parse_host
from sidecar.ledger import Ledger
from sidecar.limits import Limits
from sidecar.pki.coverage import check_coverage
from sidecar.pki.leaf import LeafMinter
from sidecar.pki.rotation import Take
from sidecar.pki.session_ca import SessionCa
from sidecar.pki.trial import doubts
from sidecar.policy import Policy, lint_policy
from sidecar.problem import Failure
from sidecar.reasons import Reason
from sidecar.runtime.expiry import Expiry
from sidecar.store import PolicyStore
from sidecar.upstream_proxy import UpstreamProxy, UpstreamProxyError, parse_upstream_proxy
from sidecar.upstreams.files import Upstreams
from sidecar.upstreams.sessions import Sessions

_RESOLVE = re.compile(r"(?P<name>[^:\[\]]+)(?::(?P<port>[0-9]{1,5}))?:(?P<address>\[[^\]]+\]|[0-9.]+)")

type Clock = Callable[[], datetime]
type Pinned = Mapping[tuple[str, int | None], IPAddress]


def wall_clock() -> datetime:
    """Aware, UTC."""
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What a session is told, parsed; the CLI's flags and the addon's options both become this."""

    policy: Policy
    upstreams: Upstreams
    ca: SessionCa
    sink: Sink
    session: str
    level: Level = "info"
    pinned: Pinned = field(default_factory=dict)
    limits: Limits = field(default_factory=Limits)
    upstream_proxy: UpstreamProxy | None = None
    now: Clock = wall_clock  # by which the CA is valid


class Session:
    """The collaborators of one session. Made once; the addons get them through their constructors."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings  # holds what is in force, too: what has been replaced is kept by nobody
        self.policy = PolicyStore(settings.policy)
        self.upstreams = settings.upstreams  # swapped whole, together with the policy that names their files
        self.log = EventLog(session=settings.session, sink=settings.sink, level=settings.level)
        self.ledger = Ledger(self.log.emit, opened=self.log.connection_opened, verbose=self.log.writes("debug"))
        self.now = settings.now
        self._minter = LeafMinter(settings.ca, self.now)
        self.ca_problems: tuple[str, ...] = ()  # of what is mounted in the place of the CA that signs
        self.ca_pending: str | None = None  # why a new CA isn't used yet
        self.expiry = Expiry(lambda: self._minter.ca, self.log.emit, self.now)
        self.sessions = Sessions(settings.limits.tls_sessions)
        self.pool = Pool(settings.limits.upstream_pool, settings.limits.upstream_pool_seconds, self.sessions)

    def minter(self) -> LeafMinter:
        return self._minter

    def ca_expired(self) -> Failure | None:
        """Why nothing is let through that a certificate is needed for, nor any request; None while the CA is valid."""
        if not (minter := self._minter).expired:
            return None
        text = f"the session CA {minter.ca.common_name!r} expired at {minter.ca.not_after:%FT%TZ}"
        return Failure(Reason.CA_EXPIRED, text)

    def rotate(self, ca: SessionCa, decided: Take) -> None:
        """Have *ca* sign from now on. Leaves of the old one, and TLS tickets, are forgotten; connections go on."""
        old, self._minter = self._minter, LeafMinter(ca, self.now, key=self._minter.key)
        self.settings = replace(self.settings, ca=ca)
        self.log.emit(
            CaRotated(
                subject=ca.certificate.subject.rfc4514_string(),
                fingerprint_sha256=ca.fingerprint(),
                old_fingerprint_sha256=old.ca.fingerprint(),
                not_before=ca.not_before.isoformat(),
                not_after=ca.not_after.isoformat(),
                chain_length=len(ca.chain),
                root_changed=decided.root_changed,
                reason=decided.reason,
            )
        )
        self.expiry.start()

    def put_in_force(self, policy: Policy, upstreams: Upstreams) -> Policy:
        """Have *policy* and *upstreams* count from now on; gives the policy as the next generation."""
        policy, self.upstreams = self.policy.swap(policy), upstreams
        self.pool.clear()
        self.settings = replace(self.settings, policy=policy, upstreams=upstreams)
        return policy

    def announce(self, listen: tuple[str, ...]) -> None:
        """The first events of a session: what it runs with."""
        ca, policy = self.settings.ca, self.policy()
        self.log.emit(SessionStarted(version=__version__, listen=listen))
        self.log.emit(
            CaLoaded(
                subject=ca.certificate.subject.rfc4514_string(),
                fingerprint_sha256=ca.fingerprint(),
                not_before=ca.not_before.isoformat(),
                not_after=ca.not_after.isoformat(),
                chain_length=len(ca.chain),
                warnings=doubts(ca, datetime.now(UTC)),
            )
        )
        self.announce_policy(policy, self.check_policy(policy))

    def check_policy(self, policy: Policy) -> tuple[str, ...]:
        """
        What is doubtful about a policy, under the CA in force.

        Raises:
            PolicyError: It allows what the CA's name constraints forbid to answer for.
        """
        return tuple(str(warning) for warning in (*lint_policy(policy), *check_coverage(policy, self.minter().ca)))

    def announce_policy(self, policy: Policy, warnings: tuple[str, ...], *, revoked_connections: int = 0) -> None:
        """A policy is in force from now on."""
        self.log.emit(
            PolicyLoaded(
                source=policy.source,
                policy_hash=policy.hash,
                generation=policy.generation,
                rules=len(policy.rules),
                default=policy.default,
                warnings=warnings,
                revoked_connections=revoked_connections,
            )
        )

    def close(self) -> Summary:
        """End the session: what is still open gets its closing record, the summary is written and returned."""
        self.expiry.stop()
        for record in self.ledger.connections():
            self.ledger.disconnect(record.id)
        return self.log.close().summary


def parse_resolve(entries: Iterable[str]) -> dict[tuple[str, int | None], IPAddress]:
    """
    Parse ``NAME:ADDRESS`` and curl's ``NAME:PORT:ADDRESS``; an IPv6 address stands in brackets.

    Raises:
        SidecarError: An entry is neither.
    """
    pinned: dict[tuple[str, int | None], IPAddress] = {}
    for entry in entries:
        parts = _RESOLVE.fullmatch(entry)
        try:
            if parts is None:
                raise HostError(entry)
            name, address = parse_host(parts["name"]), parse_host(parts["address"])
            if address.address is None or name.address is not None or int(parts["port"] or 1) not in range(1, 65536):
                raise HostError(entry)
        except HostError:
            text = f"--resolve {entry!r} isn't NAME:ADDRESS or NAME:PORT:ADDRESS; write 'example.com:192.0.2.1'"
            raise SidecarError(text) from None
        pinned[name.name, int(parts["port"]) if parts["port"] else None] = address.address
    return pinned


def read_upstream_proxy(url: str | None, credentials: Path | None, no_proxy: Iterable[str]) -> UpstreamProxy | None:
    """
    The proxy at *url*, with what *credentials* holds; None without a URL.

    Raises:
        UpstreamProxyError: One of them is malformed, or credentials or exceptions are given without a proxy.
        SidecarError: The file can't be read.
    """
    if not url:
        if credentials is not None or any(no_proxy):
            raise UpstreamProxyError(
                "--upstream-proxy-credentials and --no-proxy say something of --upstream-proxy, which is missing"
            )
        return None
    text = _read(credentials).decode("utf-8", "replace") if credentials is not None else None
    return parse_upstream_proxy(url, credentials=text, no_proxy=no_proxy)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as e:
        raise SidecarError(
            f"{path}: can't be read: {e.strerror}; give the path of a file that this user may read"
        ) from None
