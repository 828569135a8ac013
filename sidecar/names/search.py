"""``resolv.conf``, and which names are only a search list's expansions."""

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import ip_address

from sidecar.hosts import HostError, IPAddress, parse_host


@dataclass(frozen=True, slots=True)
class ResolvConf:
    """What of a ``resolv.conf`` matters here."""

    nameservers: tuple[IPAddress, ...] = ()
    search: tuple[str, ...] = ()  # normalised, without the root
    ndots: int = 1


def parse_resolv_conf(text: str) -> ResolvConf:
    """
    Read ``nameserver``, ``search`` (or ``domain``) and ``options ndots:``; skip what isn't understood.

    Lenient as resolvers are, since the file is the cluster's and not the user's: the last ``search`` or ``domain``
    holds, ``ndots`` is capped at 15, addresses with a zone id (IPv6 link-local) keep it.
    resolv.conf(5), as in glibc.
    """
    nameservers: list[IPAddress] = []
    search: tuple[str, ...] = ()
    ndots = 1
    for line in text.splitlines():
        match line.partition("#")[0].partition(";")[0].split():
            case ["nameserver", address, *_]:
                try:
                    nameservers.append(ip_address(address))
                except ValueError:
                    continue
            case ["search", *domains]:
                search = search_domains(domains)
            case ["domain", domain, *_]:
                search = search_domains([domain])
            case ["options", *options]:
                for option in options:
                    key, _, value = option.partition(":")
                    if key == "ndots" and value.isascii() and value.isdigit():
                        ndots = min(int(value), 15)
    return ResolvConf(tuple(nameservers), search, ndots)


def search_domains(domains: Iterable[str]) -> tuple[str, ...]:
    """Normalise search domains, each once, in order; the root (``.``) and what is no name are left out."""
    names: dict[str, None] = {}
    for domain in domains:
        try:
            host = parse_host(domain)
        except HostError:
            continue
        if not host.is_address:
            names[host.name] = None
    return tuple(names)


def lies_in(name: str, domain: str) -> bool:
    """Is *name* the *domain* or a name below it? Both normalised."""
    return name == domain or name.endswith(f".{domain}")


def is_local(name: str, search: Iterable[str]) -> bool:
    """
    Is *name* one that a search list makes, or that only the pod's own network can know?

    True for the search domains, all names below them, and names of a single label.
    """
    return "." not in name or any(lies_in(name, domain) for domain in search)
