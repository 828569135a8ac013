"""What a policy says of single upstreams: whom they are trusted by, who we are to them, what they are forgiven."""

from dataclasses import dataclass
from enum import StrEnum

from sidecar.policy.patterns import HostPattern
from sidecar.policy.problems import Path, Position


class Accept(StrEnum):
    """What an upstream is refused for unless its entry accepts it. There is none for chain, name and validity."""

    CA_LEAF = "ca_leaf"  # the certificate is a CA's
    MISSING_STAPLE = "missing_staple"  # it asks for a stapled OCSP response (RFC 7633), and no good one came
    LONG_LIVED = "long_lived"  # it is valid for ten years or more
    STATIC_RSA = "static_rsa"  # a key exchange without forward secrecy
    CBC = "cbc"  # cipher suites that authenticate before they encrypt


@dataclass(frozen=True, slots=True)
class NamedFile:
    """A file as the policy names it: a relative path is relative to the policy's own folder."""

    path: str
    where: Path  # ("upstreams", 0, "crl")
    position: Position


@dataclass(frozen=True, slots=True)
class Upstream:
    """One entry of `upstreams`. Of `roots` (instead of the sidecar's) and `add_roots` (besides them) one at most."""

    index: int  # from 0, as in `upstreams[0]`
    patterns: tuple[HostPattern, ...]
    roots: NamedFile | None
    add_roots: NamedFile | None
    client_certificate: NamedFile | None
    client_key: NamedFile | None  # where there is a certificate
    crl: NamedFile | None
    accept: frozenset[Accept]
    position: Position
    pattern_positions: tuple[Position, ...]  # as many as there are patterns

    @property
    def files(self) -> tuple[NamedFile, ...]:
        named = (self.roots, self.add_roots, self.client_certificate, self.client_key, self.crl)
        return tuple(file for file in named if file is not None)
