"""Under which names and addresses a pod is reached inside of its cluster, from what the downward API tells of it."""

from collections.abc import Iterator
from dataclasses import dataclass

from sidecar.errors import SidecarError
from sidecar.hosts import Host, HostError, IPAddress, parse_host

CLUSTER_DOMAIN = "cluster.local"


class PodNameError(SidecarError):
    """What is told of the pod makes no names, or none at all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pod:
    """A pod as others address it; None and empty where that isn't known."""

    addresses: tuple[IPAddress, ...] = ()  # status.podIPs
    name: str | None = None  # metadata.name
    namespace: str | None = None  # metadata.namespace
    services: tuple[str, ...] = ()  # of its namespace, that select it
    hostname: str | None = None  # what `hostname` prints in it; only together with a subdomain
    subdomain: str | None = None  # spec.subdomain: a StatefulSet's serviceName
    cluster_domain: str = CLUSTER_DOMAIN
    extra: tuple[Host, ...] = ()


def hosts_of(pod: Pod) -> tuple[Host, ...]:
    """
    Name a pod in every way in which the cluster's DNS does, most used first, each once.

    Returns:
        At least one: for a service ``web``, ``web.NS``, ``web.NS.svc`` and ``web.NS.svc.cluster.local``; the same
        for ``HOSTNAME.SUBDOMAIN``; the pod's own name; what was asked for beside; for each address
        ``10-1-2-3.NS.pod.cluster.local``, and the address.

    Raises:
        PodNameError: Nothing is known of the pod, a service or a subdomain comes without a namespace, or a part is no
            label or name.

    Kubernetes DNS-Based Service Discovery 1.1.0, sections 2.3 and 2.4; for addresses what CoreDNS answers.
    """
    found = tuple(dict.fromkeys(_hosts(pod)))
    if not found:
        raise PodNameError(
            "nothing is known of this pod that a certificate could name; set POD_IP from the downward API's "
            "status.podIP, or give --service, --name or --ip"
        )
    return found


def _hosts(pod: Pod) -> Iterator[Host]:
    for service in pod.services:
        yield from _within(_label(service, "--service"), pod, "--service")
    if pod.subdomain is not None:
        hostname = pod.hostname or pod.name
        if hostname is None:
            raise PodNameError(
                "--subdomain names this pod together with its host name; give --hostname, or set POD_NAME"
            )
        stem = f"{_label(hostname, '--hostname')}.{_label(pod.subdomain, '--subdomain')}"
        yield from _within(stem, pod, "--subdomain")
    if pod.name is not None:
        yield _name(pod.name, "--pod-name")
    yield from pod.extra
    for address in pod.addresses:
        if pod.namespace is not None:
            yield _name(f"{_dashed(address)}.{pod.namespace}.pod.{pod.cluster_domain}", "--namespace")
    for address in pod.addresses:
        yield Host(str(address), address)


def _within(stem: str, pod: Pod, option: str) -> Iterator[Host]:
    if pod.namespace is None:
        raise PodNameError(
            f"{option} {stem!r} needs the pod's namespace; set POD_NAMESPACE from the downward API's "
            "metadata.namespace, or give the whole name with --name"
        )
    namespace = _label(pod.namespace, "--namespace")
    for suffix in ("", f".{namespace}", f".{namespace}.svc", f".{namespace}.svc.{pod.cluster_domain}"):
        yield _name(stem + suffix, "--cluster-domain")


def _dashed(address: IPAddress) -> str:
    short = str(address).replace(".", "-").replace(":", "-")
    # No label begins or ends with a hyphen, as "fd00::" would.
    return address.exploded.replace(":", "-") if short.startswith("-") or short.endswith("-") else short


def _label(text: str, option: str) -> str:
    name = _name(text, option).name
    if "." in name:
        raise PodNameError(f"{option} {text!r} is more than one label; give whole names with --name")
    return name


def _name(text: str, option: str) -> Host:
    try:
        host = parse_host(text)
    except HostError:
        host = None
    if host is None or host.is_address:
        raise PodNameError(f"{option} makes {text!r}, which is no host name; write letters, digits and '-'")
    return host
