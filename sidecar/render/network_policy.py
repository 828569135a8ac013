"""The NetworkPolicy around a pod: what holds even if everything in the pod fails."""

from collections.abc import Iterable, Sequence
from ipaddress import collapse_addresses
from typing import Final

from sidecar.addresses import IPNetwork
from sidecar.inject.names import Json

# What no pod needs of the Internet's addresses; RFC 6890 and its registries, and NAT64 (RFC 6052), which leads to any
# of the IPv4 ones.
_NOT_V4: Final = (
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "169.254.0.0/16",  # metadata services
    "172.16.0.0/12",
    "192.0.0.0/24",
    "192.168.0.0/16",
    "198.18.0.0/15",
    "224.0.0.0/4",
    "240.0.0.0/4",
)
_NOT_V6: Final = (
    "::/96",
    "::ffff:0.0.0.0/96",
    "64:ff9b::/96",
    "64:ff9b:1::/48",
    "2002::/16",
    "fc00::/7",
    "fe80::/10",
    "ff00::/8",
)


def network_policy(name: str, labels: dict[str, str], allow: Sequence[IPNetwork] = ()) -> Json:
    """
    Egress to global addresses, to the cluster's resolver, and to what the policy excepts.

    Args:
        name: Of the NetworkPolicy.
        labels: Of the pods that it holds for.
        allow: Private networks that the policy's ``network.allow_addresses`` names.
    """
    resolver = {
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}},
        "podSelector": {"matchLabels": {"k8s-app": "kube-dns"}},
    }
    peers: list[Json] = [
        {"ipBlock": {"cidr": "0.0.0.0/0", "except": list(_NOT_V4)}},
        {"ipBlock": {"cidr": "::/0", "except": list(_NOT_V6)}},
        *({"ipBlock": {"cidr": str(network)}} for network in _collapsed(allow)),
    ]
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": name},
        "spec": {
            "podSelector": {"matchLabels": labels},
            "policyTypes": ["Egress"],
            "egress": [
                {"to": [resolver], "ports": [{"protocol": "UDP", "port": 53}, {"protocol": "TCP", "port": 53}]},
                {"to": peers, "ports": [{"protocol": "TCP"}]},
            ],
        },
    }


def _collapsed(networks: Iterable[IPNetwork]) -> list[IPNetwork]:
    known = set(networks)
    fours = collapse_addresses(network for network in known if network.version == 4)
    sixes = collapse_addresses(network for network in known if network.version == 6)
    return [*fours, *sixes]
