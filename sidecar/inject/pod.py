"""A pod with the sidecar in it: what should be there is made, and what is there already and right is left alone."""

from copy import deepcopy
from dataclasses import dataclass
from typing import Final

from sidecar.inject import containers, names, workload
from sidecar.inject.names import Json, Refusal, items, section
from sidecar.inject.plan import SidecarPlan
from sidecar.inject.structure import find

_DEFAULT_CONTAINER: Final = "kubectl.kubernetes.io/default-container"


@dataclass(frozen=True, slots=True)
class Changed:
    """A pod as it should be, and what its author should know."""

    pod: Json
    warnings: tuple[str, ...] = ()


def with_sidecar(pod: Json, plan: SidecarPlan) -> Changed:
    """
    Put the sidecar into a pod, ahead of everything else in it.

    Doing so again changes nothing; after another webhook's changes it puts right what is ours.

    Args:
        pod: As the API server sends it; stays as it is.

    Raises:
        Refusal: The sidecar can't be put into such a pod at all.
    """
    pod = deepcopy(pod)
    spec = section(pod, "spec")
    if plan.transparent and spec.get("hostNetwork"):
        raise Refusal("the pod is in the host's network, where the redirect would catch the whole node; leave it out")
    warnings: list[str] = []
    before = [*items(spec, "initContainers"), *items(spec, "containers")]
    for container in before:
        if container.get("name") not in names.CONTAINERS:
            warnings += _prepare(container, plan)
    for key, expected in (
        ("initContainers", containers.init_containers(plan)),
        ("containers", containers.containers(plan)),
    ):
        own = [one for one in items(spec, key) if one.get("name") not in names.CONTAINERS]
        spec[key] = [find(before, made) or made for made in expected] + own
    if not plan.native:
        # kubectl would choose the first container, which is the sidecar.
        own = [one for one in spec["containers"] if one.get("name") not in names.CONTAINERS]
        section(pod, "metadata", "annotations").setdefault(_DEFAULT_CONTAINER, own[0].get("name") if own else "")
    spec["volumes"] = _volumes(items(spec, "volumes"), containers.volumes(plan))
    labels = section(pod, "metadata", "labels")
    labels[names.PROFILE_LABEL] = plan.profile
    labels[names.POLICY_LABEL] = plan.policy.name
    return Changed(pod, tuple(dict.fromkeys(warnings)))


def missing_parts(pod: Json, plan: SidecarPlan) -> list[str]:
    """What of the sidecar isn't in a pod, is changed, or isn't ahead of the pod's own: one text for each."""
    spec = pod.get("spec") or {}
    found = []
    for key, expected in (
        ("initContainers", containers.init_containers(plan)),
        ("containers", containers.containers(plan)),
    ):
        present = items(spec, key)
        for number, made in enumerate(expected):
            if find(present, made) is None:
                found.append(f"{key}: '{made['name']}' is missing, or isn't as it was injected")
            elif present[number : number + 1] != [find(present, made)]:
                found.append(f"{key}[{number}]: '{made['name']}' has to come here, before the pod's own containers")
        wanted = {made["name"] for made in expected}
        strangers = [str(one.get("name")) for one in present if one.get("name") in names.CONTAINERS - wanted]
        found += [f"{key}: '{name}' is a name of the sidecar's; choose another one" for name in strangers]
    for made in containers.volumes(plan):
        if find(items(spec, "volumes"), made) is None:
            found.append(f"volumes: '{made['name']}' is missing, or isn't as it was injected")
    return found


def _prepare(container: Json, plan: SidecarPlan) -> list[str]:
    name = container.get("name")
    warnings = [
        f"container '{name}': the mount of '{volume}' was taken out" for volume in workload.take_away(container)
    ]
    if plan.transparent:
        workload.drop_privileges(container)
    else:
        warnings += workload.explicit_proxy(container, plan)
    if name not in plan.untrusting:
        warnings += workload.trust_folder(container, plan)
    return warnings


def _volumes(present: list[Json], expected: list[Json]) -> list[Json]:
    """Ours where they stand already, else at the end; no others by our names."""
    intact = {made["name"]: find(present, made) for made in expected}
    kept = [one for one in present if one.get("name") not in names.VOLUMES or one is intact.get(one["name"])]
    return kept + [made for made in expected if intact[made["name"]] is None]
