"""
What an enforced namespace refuses: every way that we know of a pod that has the sidecar to get past it.

Each check gives texts that say where, what, and what to write instead. See docs/netfilter.md for why each matters.
"""

from collections.abc import Iterator

from sidecar.inject import names
from sidecar.inject.config import Config
from sidecar.inject.names import Json, items
from sidecar.inject.plan import SidecarPlan
from sidecar.inject.pod import missing_parts
from sidecar.inject.workload import FORBIDDEN, capability_name

_KINDS = ("initContainers", "containers", "ephemeralContainers")

# Whoever is given one of these reads the node's files or another process; no runtime gives them unasked.
_NODE_READERS = frozenset({"DAC_READ_SEARCH", "PERFMON", "SYS_RAWIO"})

# Filled from the API server, or by what the cluster's administrator has set up. For all others (nfs, iscsi, gitRepo, …)
# the node connects to wherever the pod says: a way out that no rule in the pod's network sees.
_VOLUMES = frozenset(
    {
        "configMap",
        "csi",
        "downwardAPI",
        "emptyDir",
        "ephemeral",
        "hostPath",  # judged apart
        "image",
        "persistentVolumeClaim",
        "projected",
        "secret",
    }
)
_PROBES = ("startupProbe", "readinessProbe", "livenessProbe")


def objections(pod: Json, plan: SidecarPlan, config: Config) -> list[str]:
    """Why a new pod isn't admitted; empty if it is."""
    spec = pod.get("spec") or {}
    found = [*missing_parts(pod, plan), *_pod(spec, config), *_volumes(spec, plan, config)]
    for where, container in _own(spec):
        found += _container(where, container, spec, plan, config)
    return found


def objections_to_debugging(pod: Json, before: Json, plan: SidecarPlan, config: Config) -> list[str]:
    """The same for ephemeral containers that are added to a running pod."""
    spec = pod.get("spec") or {}
    known = [container.get("name") for container in items(before.get("spec") or {}, "ephemeralContainers")]
    added = [one for one in items(spec, "ephemeralContainers") if one.get("name") not in known]
    if added and config.guard.ephemeral_containers == "refuse":
        found = ", ".join(str(container.get("name")) for container in added)
        return [f"ephemeralContainers: {found}: this namespace admits none (guard.ephemeralContainers)"]
    found_all = []
    for container in added:
        where = f"ephemeralContainers '{container.get('name')}'"
        if container.get("targetContainerName") in names.CONTAINERS:
            found_all.append(f"{where}: its target is the sidecar; choose a container of the workload")
        found_all += _container(where, container, spec, plan, config)
    return found_all


def objections_to_update(pod: Json, before: Json) -> list[str]:
    """Why a change of a running pod isn't admitted: the API server lets images be changed, and little else."""
    images = [_images(one.get("spec") or {}) for one in (before, pod)]
    return [
        f"'{name}': the sidecar's image isn't to be changed in a running pod; delete the pod, and it is injected anew"
        for name, image in images[0].items()
        if images[1].get(name) != image
    ]


def objections_to_entering(container: str | None, what: str) -> list[str]:
    """Why nobody runs a command in the sidecar's containers, nor attaches to them."""
    if container in names.CONTAINERS:
        return [f"{what} into '{container}': it holds the CA's key and passes the fence; enter the workload instead"]
    return []


def _images(spec: Json) -> dict[str, object]:
    return {
        str(container.get("name")): container.get("image")
        for kind in ("initContainers", "containers")
        for container in items(spec, kind)
        if container.get("name") in names.CONTAINERS
    }


def _own(spec: Json) -> Iterator[tuple[str, Json]]:
    for kind in _KINDS:
        for container in items(spec, kind):
            if container.get("name") not in names.CONTAINERS:
                yield f"{kind} '{container.get('name')}'", container


def _pod(spec: Json, config: Config) -> Iterator[str]:
    if spec.get("hostNetwork"):
        yield "hostNetwork: the node's network has no fence; leave it out"
    if spec.get("hostPID"):
        yield "hostPID: the pod would see the sidecar's process and every other one; leave it out"
    if spec.get("shareProcessNamespace"):
        yield "shareProcessNamespace: the workload would see the sidecar's process; leave it out"
    if items(spec, "ephemeralContainers"):
        yield "ephemeralContainers: none come with a new pod; leave them out"
    # The sidecar resolves names by the pod's settings: who chooses the answers chooses where an allowed name leads.
    if items(spec, "hostAliases") and not config.guard.allow_host_aliases:
        yield "hostAliases: the pod would choose the addresses of allowed names; leave it out, and write address rules"
    if spec.get("dnsPolicy") == "None" or items(spec.get("dnsConfig") or {}, "nameservers"):
        yield "dnsPolicy, dnsConfig.nameservers: the pod would choose who resolves allowed names; leave them out"
    if items(spec.get("securityContext") or {}, "sysctls"):
        yield "securityContext.sysctls: the pod would change the network that the fence stands in; leave it out"


def _volumes(spec: Json, plan: SidecarPlan, config: Config) -> Iterator[str]:
    for volume in items(spec, "volumes"):
        name = volume.get("name")
        if name in names.VOLUMES:
            continue
        if volume.get("hostPath") is not None and not config.guard.allow_host_path:
            yield f"volumes '{name}': hostPath: the node's files hold every pod's volumes, keys too; leave it out"
        if plan.ca_secret and plan.ca_secret in _secrets_of(volume):
            yield f"volumes '{name}': Secret '{plan.ca_secret}' holds the CA's key; leave it out"
        if kinds := sorted(key for key in volume.keys() - {"name", *_VOLUMES} if volume[key] is not None):
            yield f"volumes '{name}': {kinds[0]}: the node would connect there, past the fence; use a volume claim"


def _secrets_of(volume: Json) -> set[object]:
    found: set[object] = {(volume.get("secret") or {}).get("secretName")}
    for source in items(volume.get("projected") or {}, "sources"):
        found.add((source.get("secret") or {}).get("name"))
    for key in ("csi", "flexVolume", "cephfs", "rbd", "iscsi", "scaleIO", "storageos", "azureFile"):
        reference = volume.get(key) or {}
        found.add((reference.get("nodePublishSecretRef") or reference.get("secretRef") or {}).get("name"))
        found.add(reference.get("secretName"))
    return found


def _container(where: str, container: Json, spec: Json, plan: SidecarPlan, config: Config) -> Iterator[str]:
    context = container.get("securityContext") or {}
    if context.get("privileged"):
        yield f"{where}: privileged: it could do away with the fence; leave it out"
    user = context.get("runAsUser")
    if user is None:
        user = (spec.get("securityContext") or {}).get("runAsUser")
    if user == plan.settings.uid:
        yield f"{where}: runAsUser {user} is the sidecar's, which the fence lets pass; choose another one"
    if user is None and config.guard.require_run_as_user:
        yield f"{where}: runAsUser is missing, and an image's own user can't be seen here; write one"
    if plan.transparent:
        yield from _privileges(where, context)
    yield from _mounts(where, container)
    yield from _handlers(where, container)
    if plan.ca_secret and plan.ca_secret in _secrets_in_variables(container):
        yield f"{where}: env: Secret '{plan.ca_secret}' holds the CA's key; leave it out"


def _privileges(where: str, context: Json) -> Iterator[str]:
    if context.get("allowPrivilegeEscalation") is not False:
        yield f"{where}: allowPrivilegeEscalation: a setuid file would make it the sidecar's user; write false"
    if context.get("procMount") not in (None, "Default"):
        yield f"{where}: procMount: it could change the network's settings; leave it out"
    capabilities = context.get("capabilities") or {}
    added = {capability_name(word) for word in items(capabilities, "add")}
    dropped = {capability_name(word) for word in items(capabilities, "drop")}
    if asked := sorted(added & {*FORBIDDEN, *_NODE_READERS, "ALL"}):
        yield f"{where}: capabilities.add {', '.join(asked)}: they lead past the fence; leave them out"
    if "ALL" not in dropped and (kept := [word for word in FORBIDDEN if word not in dropped | added]):
        yield f"{where}: capabilities.drop lacks {', '.join(kept)}; write drop: [ALL], and add what is needed"


def _mounts(where: str, container: Json) -> Iterator[str]:
    for mount in items(container, "volumeMounts"):
        if mount.get("name") in names.SECRET_VOLUMES:
            yield f"{where}: volumeMounts: '{mount['name']}' is the sidecar's alone; leave it out"
        elif mount.get("name") == names.TRUST_VOLUME and mount.get("readOnly") is not True:
            yield f"{where}: volumeMounts: '{names.TRUST_VOLUME}' is to be read only; write readOnly: true"


def _handlers(where: str, container: Json) -> Iterator[str]:
    hooks = container.get("lifecycle") or {}
    handlers = {kind: container.get(kind) for kind in _PROBES} | {f"lifecycle.{kind}": hooks[kind] for kind in hooks}
    for name, handler in handlers.items():
        for kind in ("httpGet", "tcpSocket"):
            if ((handler or {}).get(kind) or {}).get("host"):
                yield f"{where}: {name}.{kind}.host: the node would connect there, past the fence; leave it out"


def _secrets_in_variables(container: Json) -> set[object]:
    found: set[object] = set()
    for variable in items(container, "env"):
        found.add(((variable.get("valueFrom") or {}).get("secretKeyRef") or {}).get("name"))
    for source in items(container, "envFrom"):
        found.add((source.get("secretRef") or {}).get("name"))
    return found
