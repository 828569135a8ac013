"""What the injected parts are called, and where they are mounted. In a pod, these names are the sidecar's alone."""

from typing import Any, Final

type Json = dict[str, Any]

PREFIX: Final = "egress-sidecar/"  # of our annotations and labels
PROFILE_LABEL: Final = f"{PREFIX}profile"
POLICY_LABEL: Final = f"{PREFIX}policy"

BOOTSTRAP: Final = "egress-bootstrap"
NETFILTER: Final = "egress-netfilter"
SIDECAR: Final = "egress-sidecar"
FENCE_CHECK: Final = "egress-fence-check"
CONTAINERS: Final = frozenset({BOOTSTRAP, NETFILTER, SIDECAR, FENCE_CHECK})

CA_VOLUME: Final = "egress-ca"
CONTROL_VOLUME: Final = "egress-control"
POLICY_VOLUME: Final = "egress-policy"
TRUST_VOLUME: Final = "egress-trust"
VOLUMES: Final = frozenset({CA_VOLUME, CONTROL_VOLUME, POLICY_VOLUME, TRUST_VOLUME})
SECRET_VOLUMES: Final = frozenset({CA_VOLUME, CONTROL_VOLUME})  # no container of the workload mounts these

CA_PATH: Final = "/run/egress/ca"
CONTROL_PATH: Final = "/run/egress/control"
CONTROL_SOCKET: Final = f"{CONTROL_PATH}/control.sock"
POLICY_PATH: Final = "/etc/egress/policy"
TRUST_PATH: Final = "/etc/egress/trust"

EXPLICIT_PORT: Final = 14101
FENCE_CHECK_USER: Final = 65534  # anybody but the sidecar: the fence is to hold this user
SERVICE_ACCOUNT_PATH: Final = "/var/run/secrets/kubernetes.io/serviceaccount"


class Refusal(Exception):
    """The pod is not admitted; the text is for whoever sent it."""


def section(pod: Json, *path: str) -> Json:
    """The mapping at *path*, made where it is missing or null."""
    for key in path:
        if pod.get(key) is None:
            pod[key] = {}
        pod = pod[key]
    return pod


def items(parent: Json, key: str) -> list[Json]:
    """The list at *key*; empty where it is missing or null."""
    found: list[Json] = parent.get(key) or []
    return found
