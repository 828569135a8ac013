"""Trust alone: a bundle that is in the namespace already, mounted and named in every container. No sidecar."""

from copy import deepcopy
from typing import Final

from sidecar.inject import workload
from sidecar.inject.names import Json, items, section
from sidecar.inject.plan import TrustPlan
from sidecar.inject.pod import Changed

_VOLUME: Final = "egress-bundle"


def with_bundle(pod: Json, plan: TrustPlan) -> Changed:
    """
    Mount a bundle into all containers and init containers but those excluded.

    Doing so again changes nothing. Variables and mounts that are there already stay.

    Args:
        pod: As the API server sends it; stays as it is.
    """
    pod = deepcopy(pod)
    spec = section(pod, "spec")
    wanted = [
        container
        for key in ("initContainers", "containers")
        for container in items(spec, key)
        if container.get("name") not in plan.excluded
    ]
    volume = _volume_of(items(spec, "volumes"), plan)
    for container in wanted:
        workload.bundle(container, plan, str(volume["name"]))
    used = any(mount.get("name") == volume["name"] for one in wanted for mount in items(one, "volumeMounts"))
    if used and volume not in items(spec, "volumes"):
        spec["volumes"] = [*items(spec, "volumes"), volume]
    return Changed(pod)


def _volume_of(present: list[Json], plan: TrustPlan) -> Json:
    """The pod's own volume of that bundle, if it has one; else a new one, under a name that is free."""
    key = "name" if plan.source == "configMap" else "secretName"
    for volume in present:
        source = volume.get(plan.source)
        if isinstance(source, dict) and source.get(key) == plan.name and not source.get("items"):
            return volume
    taken = {volume.get("name") for volume in present}
    free = next(
        name for number in range(len(taken) + 1) if (name := f"{_VOLUME}-{number}" if number else _VOLUME) not in taken
    )
    return {"name": free, plan.source: {key: plan.name}}
