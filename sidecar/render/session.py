"""Everything that one session needs, as manifests: policy, CA, the walls around the pod, and the pod itself."""

import base64
import re
from dataclasses import dataclass
from typing import Final, Literal

from sidecar.errors import SidecarError
from sidecar.inject.config import PolicyChoice, SidecarDocument
from sidecar.inject.names import PREFIX, Json, section
from sidecar.inject.plan import SidecarPlan
from sidecar.inject.pod import with_sidecar
from sidecar.pki import SessionCa
from sidecar.policy import parse_policy
from sidecar.render.network_policy import network_policy

SESSION_LABEL: Final = f"{PREFIX}session"

CERTIFICATE: Final = "ca.pem"
KEY: Final = "ca-key.pem"

_ID: Final = re.compile(r"[a-z0-9]([-a-z0-9]{0,48}[a-z0-9])?\Z")


class RenderError(SidecarError):
    """No manifests can be made of this."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What the caller wants."""

    session: str
    policy: str  # its text
    pod: Json
    settings: SidecarDocument
    form: Literal["native", "classic"] = "native"
    profile: Literal["transparent", "restricted"] = "transparent"
    validity_hours: int = 24
    ca: SessionCa | None = None  # for a Secret; None: made in the pod
    namespace: str | None = None
    owner_uid: str | None = None  # of the Pod, once it is created


def manifests(order: Order) -> list[Json]:
    """
    The session's objects: NetworkPolicy, ConfigMap, Secret where there is one, Pod.

    With the pod's UID all others belong to it, and are deleted with it. The Pod waits for them when it is first.

    Raises:
        RenderError: The session's id can't be part of names, or no image is named.
        PolicyError: The policy isn't valid.
        Refusal: The pod can't have a sidecar.
    """
    if not _ID.match(order.session):
        raise RenderError(
            f"--session {order.session!r} can't be part of an object's name; "
            "write 1 to 50 lower-case letters, digits and '-'"
        )
    if not order.settings.image:
        raise RenderError("no image is named; give --image, or a --config with sidecar.image")
    policy = parse_policy(order.policy, "policy.yaml")
    pod = _pod(order)
    labels = {SESSION_LABEL: order.session}
    others = [
        network_policy(_name("egress", order), labels, policy.network.allow_addresses),
        _config_map(order),
        *([_secret(order, order.ca)] if order.ca else []),
    ]
    for made in others:
        section(made, "metadata")["labels"] = dict(labels)
        if order.owner_uid is not None:
            section(made, "metadata")["ownerReferences"] = [
                {"apiVersion": "v1", "kind": "Pod", "name": pod["metadata"]["name"], "uid": order.owner_uid}
            ]
    made_all = [*others, pod]
    if order.namespace is not None:
        for made in made_all:
            section(made, "metadata")["namespace"] = order.namespace
    return made_all


def _pod(order: Order) -> Json:
    plan = SidecarPlan(
        settings=order.settings,
        policy=PolicyChoice.model_validate({"name": "session", "configMap": _name("egress-policy", order)}),
        profile=order.profile,
        form=order.form,
        validity_hours=order.validity_hours,
        ca_secret=_name("egress-ca", order) if order.ca else None,
        session=order.session,
        system_bundles=tuple(order.settings.system_bundles),
    )
    pod = with_sidecar(order.pod, plan).pod
    metadata = section(pod, "metadata")
    if not metadata.get("name"):
        # Its objects refer to it by name.
        metadata.pop("generateName", None)
        metadata["name"] = _name("egress", order)
    section(pod, "metadata", "labels")[SESSION_LABEL] = order.session
    return pod


def _config_map(order: Order) -> Json:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": _name("egress-policy", order)},
        "data": {"policy.yaml": order.policy},
    }


def _secret(order: Order, ca: SessionCa) -> Json:
    files = {CERTIFICATE: ca.chain_pem(), KEY: ca.key_pem()}
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "Opaque",
        "metadata": {"name": _name("egress-ca", order)},
        "immutable": True,
        "data": {name: base64.b64encode(data).decode() for name, data in files.items()},
    }


def _name(kind: str, order: Order) -> str:
    return f"{kind}-{order.session}"
