"""Name constraints: which hosts a CA's own certificates let clients accept its leaves for."""

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network

from cryptography import x509

from sidecar.hosts import Host
from sidecar.pki.extensions import STAR, extensions_of

type IPNetwork = IPv4Network | IPv6Network
type Subtree = str | IPNetwork
"""A domain, meaning every name below it ("" is every name), or a network."""


@dataclass(frozen=True, slots=True)
class Subtrees:
    """One side of a certificate's constraints. Names of other kinds than a leaf has are left out."""

    domains: tuple[str, ...] = ()  # as written, in lower case; a "*" in one is an ordinary character
    networks: tuple[IPNetwork, ...] = ()

    def __str__(self) -> str:
        listed = [domain or "every name" for domain in self.domains] + [str(network) for network in self.networks]
        return ", ".join(listed[:4]) + (f" and {len(listed) - 4} more" if len(listed) > 4 else "")

    def hold(self, host: Host) -> bool:
        if host.address is not None:
            return any(host.address in network for network in self.networks)
        return any(_holds(domain, host.name) for domain in self.domains)

    def hold_all_of(self, subtree: Subtree) -> bool:
        if isinstance(subtree, str):
            return any(_holds(domain, subtree) or domain == f".{subtree}" for domain in self.domains)
        return any(_within(subtree, network) for network in self.networks)

    def reach_into(self, subtree: Subtree) -> Subtree | None:
        """The first that lies within *subtree*."""
        if isinstance(subtree, str):
            return next((d for d in self.domains if not subtree or d.endswith(f".{subtree}")), None)
        return next((network for network in self.networks if _within(network, subtree)), None)


@dataclass(frozen=True, slots=True)
class Constraints:
    """What one CA certificate says of the names below it."""

    subject: str
    permitted: Subtrees
    excluded: Subtrees

    @property
    def have_stars(self) -> bool:
        """Whether somebody took them for patterns, which they aren't."""
        return any("*" in domain for side in (self.permitted, self.excluded) for domain in side.domains)

    def refusal(self, host: Host) -> str | None:
        """Why clients refuse a leaf for *host*; ``None`` if they don't."""
        kind = self.permitted.networks if host.is_address else self.permitted.domains
        if kind and not self.permitted.hold(host):
            return self._not_permitted()
        return self._excluded() if self.excluded.hold(host) else None

    def refusal_of_all(self, subtree: Subtree) -> str | None:
        """Why clients refuse leaves for all of *subtree*, or for what isn't exempt from it by an exclusion."""
        kind = self.permitted.domains if isinstance(subtree, str) else self.permitted.networks
        if kind and not self.permitted.hold_all_of(subtree):
            return self._not_permitted()
        return self._excluded() if self.excluded.hold_all_of(subtree) else None

    def _not_permitted(self) -> str:
        return f"the name constraints of {self.subject} permit only {self.permitted}{self._hint()}"

    def _excluded(self) -> str:
        return f"the name constraints of {self.subject} exclude {self.excluded}{self._hint()}"

    def _hint(self) -> str:
        return " (a '*' in a name constraint is no wildcard)" if self.have_stars else ""


def constraints_of(certificates: Iterable[x509.Certificate]) -> tuple[Constraints, ...]:
    """The constraints of those certificates that have any; all of them hold (RFC 5280, section 6.1.4)."""
    found = []
    for certificate in certificates:
        try:
            value = extensions_of(certificate).get_extension_for_class(x509.NameConstraints).value
        except x509.ExtensionNotFound:
            continue
        subject = certificate.subject.rfc4514_string()
        found.append(Constraints(subject, *sides_of(value)))
    return tuple(found)


def sides_of(value: x509.NameConstraints) -> tuple[Subtrees, Subtrees]:
    """What is permitted, and what is excluded."""
    return _side(value.permitted_subtrees), _side(value.excluded_subtrees)


def _side(names: Iterable[x509.GeneralName] | None) -> Subtrees:
    names = tuple(names or ())
    return Subtrees(
        tuple(name.value.lower().replace(STAR, "*") for name in names if isinstance(name, x509.DNSName)),
        tuple(
            name.value
            for name in names
            if isinstance(name, x509.IPAddress) and isinstance(name.value, IPv4Network | IPv6Network)
        ),
    )


def _holds(domain: str, name: str) -> bool:
    # A leading dot is RFC 5280's for URIs alone; OpenSSL and Go read it here as "below, not the domain itself".
    return domain in ("", name) or name.endswith(domain if domain.startswith(".") else f".{domain}")


def _within(inner: IPNetwork, outer: IPNetwork) -> bool:
    return inner.version == outer.version and inner.subnet_of(outer)  # type: ignore[arg-type]  # versions are the same
