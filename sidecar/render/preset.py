"""The rules that let a workload talk to the Kubernetes API, which presents a certificate of the cluster's own CA."""

from collections.abc import Sequence
from ipaddress import ip_address
from typing import Final

from sidecar.errors import SidecarError
from sidecar.hosts import IPAddress
from sidecar.policy import parse_policy
from sidecar.policy.tree import read_tree
from sidecar.render.documents import dump

API_NAMES: Final = (
    "kubernetes",
    "kubernetes.default",
    "kubernetes.default.svc",
    "kubernetes.default.svc.cluster.local",
)


def parse_api_address(text: str) -> IPAddress:
    """
    Raises:
        SidecarError: It isn't an address.
    """
    try:
        return ip_address(text)
    except ValueError:
        raise SidecarError(
            f"--kubernetes-api {text!r} is no address; write that of the service, as "
            "'kubectl get service kubernetes' shows it"
        ) from None


def with_kubernetes_api(text: str, source: str, addresses: Sequence[IPAddress]) -> str:
    """
    A policy with a first rule for the Kubernetes API: passed through unopened, by address and by name.

    Clients in a pod trust the API by the service account's CA alone, and reach it by its address. Comments of the text
    don't survive.

    Raises:
        PolicyError: The text is no valid policy.
    """
    parse_policy(text, source)
    document = read_tree(text, source).value
    if not isinstance(document, dict):
        raise ValueError("a policy that was valid is no mapping")
    hosts = [str(address) for address in addresses]
    rules = document.get("rules")
    document["rules"] = [
        {"name": "kubernetes-api", "passthrough": [*hosts, *API_NAMES], "ports": [443, 6443]},
        *(rules if isinstance(rules, list) else []),
    ]
    network = document.get("network")
    network = dict(network) if isinstance(network, dict) else {}
    excepted = network.get("allow_addresses")
    network["allow_addresses"] = [*(excepted if isinstance(excepted, list) else []), *hosts]
    document["network"] = network
    made = dump([document]).removeprefix("---\n")
    parse_policy(made, source)
    return made
