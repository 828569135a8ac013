"""The containers and volumes that make up the sidecar, as a pod's specification has them."""

from collections.abc import Iterator
from typing import Any, Final

from sidecar.inject import names
from sidecar.inject.names import Json
from sidecar.inject.plan import SidecarPlan
from sidecar.netfilter.ruleset import CONTROL_PORTS, DNS_PORT, TRANSPARENT_PORT

# Written out though they are the defaults: a Service by the name of egress-dns sets EGRESS_DNS_PORT in every pod.
_PORTS: Final = (
    *("--transparent-port", str(TRANSPARENT_PORT)),
    *("--dns-port", str(DNS_PORT)),
    *("--control-port", str(CONTROL_PORTS[0])),
)


def init_containers(plan: SidecarPlan) -> list[Json]:
    """What runs ahead of the pod's own init containers, in this order."""
    return [made for made in _all(plan) if plan.native or made["name"] in (names.BOOTSTRAP, names.NETFILTER)]


def containers(plan: SidecarPlan) -> list[Json]:
    """What runs beside the pod's own containers, ahead of them in the list: in the classic form alone."""
    return [] if plan.native else [made for made in _all(plan) if made not in init_containers(plan)]


def volumes(plan: SidecarPlan) -> list[Json]:
    """The CA for bootstrap and sidecar alone; the policy; the trust folder for all; the control socket."""
    policy = {"name": plan.policy.config_map, "items": [{"key": plan.policy.key, "path": "policy.yaml"}]}
    made: list[Json] = [
        _ca_volume(plan),
        {"name": names.TRUST_VOLUME, "emptyDir": {"medium": "Memory", "sizeLimit": "16Mi"}},
        {"name": names.POLICY_VOLUME, "configMap": policy},
    ]
    if plan.transparent:
        made.append({"name": names.CONTROL_VOLUME, "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}})
    return made


def _ca_volume(plan: SidecarPlan) -> Json:
    if plan.ca_secret is None:
        return {"name": names.CA_VOLUME, "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}}
    # 0444: a Secret's files are root's, and a group for them (fsGroup) would be the workload's as well. Two containers
    # mount it, and both are ours.
    return {"name": names.CA_VOLUME, "secret": {"secretName": plan.ca_secret, "defaultMode": 0o444}}


def _all(plan: SidecarPlan) -> Iterator[Json]:
    yield _bootstrap(plan)
    if plan.transparent:
        yield _netfilter(plan)
    yield _sidecar(plan)
    if plan.transparent:
        yield _fence_check(plan)


def _bootstrap(plan: SidecarPlan) -> Json:
    arguments = ["bootstrap", "--ca-dir", names.CA_PATH, "--trust-dir", names.TRUST_PATH]
    # Nobody in the pod mounts the distributions' folders, and the trust folder takes the pod's memory.
    arguments += ["--validity-hours", str(plan.validity_hours), "--no-layouts"]
    return _container(plan, names.BOOTSTRAP, arguments) | {
        "env": [_session_variable(plan, "EGRESS_COMMON_NAME")],
        "volumeMounts": [
            _mount(names.CA_VOLUME, names.CA_PATH, read_only=plan.ca_secret is not None),
            _mount(names.TRUST_VOLUME, names.TRUST_PATH),
        ],
    }


def _netfilter(plan: SidecarPlan) -> Json:
    settings = plan.settings
    arguments = ["netfilter", "--sidecar-uid", str(settings.uid), *_PORTS]
    for network in settings.exclude_cidrs:
        arguments += ["--exclude-cidr", network]
    for port in settings.exclude_ports:
        arguments += ["--exclude-port", str(port)]
    made = _container(plan, names.NETFILTER, arguments)
    made["securityContext"] |= {"runAsUser": 0, "runAsGroup": 0, "runAsNonRoot": False}
    made["securityContext"]["capabilities"]["add"] = ["NET_ADMIN"]
    return made


def _sidecar(plan: SidecarPlan) -> Json:
    settings = plan.settings
    arguments = ["run", "--policy", f"{names.POLICY_PATH}/policy.yaml", "--ca-dir", names.CA_PATH]
    arguments += ["--health-listen", settings.health_listen]
    mounts = [
        _mount(names.CA_VOLUME, names.CA_PATH, read_only=True),
        _mount(names.POLICY_VOLUME, names.POLICY_PATH, read_only=True),
    ]
    if plan.transparent:
        arguments += [
            "--transparent",
            *_PORTS,
            "--control-socket",
            names.CONTROL_SOCKET,
            "--control-socket-mode",
            "0660",
        ]
        mounts.append(_mount(names.CONTROL_VOLUME, names.CONTROL_PATH))
    made = _container(plan, names.SIDECAR, [*arguments, *settings.run_arguments]) | {
        "env": [_session_variable(plan, "EGRESS_SESSION")],
        "ports": [{"name": "egress-health", "containerPort": plan.health_port, "protocol": "TCP"}],
        "volumeMounts": mounts,
    }
    if plan.native:
        made["restartPolicy"] = "Always"
    return made | (_probes(plan.health_port) if settings.probes else {})


def _fence_check(plan: SidecarPlan) -> Json:
    settings = plan.settings
    arguments = ["fence", "check", "--control-socket", names.CONTROL_SOCKET, "--wait-seconds", "60"]
    for destination in settings.expect_allowed:
        arguments += ["--expect-allowed", destination]
    if settings.denied_name is not None:
        arguments += ["--denied-name", settings.denied_name]
    if not plan.native:
        arguments.append("--then-sleep")
    made = _container(plan, names.FENCE_CHECK, arguments) | {
        "volumeMounts": [_mount(names.CONTROL_VOLUME, names.CONTROL_PATH, read_only=True)]
    }
    # The sidecar's group may use the socket; its user would pass the fence, and so prove nothing.
    made["securityContext"]["runAsUser"] = names.FENCE_CHECK_USER
    return made


def _container(plan: SidecarPlan, name: str, arguments: list[str]) -> Json:
    settings = plan.settings
    made: Json = {
        "name": name,
        "image": settings.image,
        "imagePullPolicy": settings.image_pull_policy,
        "args": arguments,
        "securityContext": {
            "runAsUser": settings.uid,
            "runAsGroup": settings.uid,
            "runAsNonRoot": True,
            "privileged": False,
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
            "seccompProfile": {"type": "RuntimeDefault"},
        },
    }
    return made | ({"resources": settings.resources} if settings.resources else {})


def _probes(port: int) -> Json:
    def probe(path: str, **more: Any) -> Json:
        return {"httpGet": {"path": path, "port": port, "scheme": "HTTP"}, "timeoutSeconds": 2, **more}

    return {
        "startupProbe": probe("/startupz", periodSeconds=1, failureThreshold=60),
        "readinessProbe": probe("/readyz", periodSeconds=5, failureThreshold=2),
        "livenessProbe": probe("/livez", periodSeconds=10, failureThreshold=3),
    }


def _session_variable(plan: SidecarPlan, name: str) -> Json:
    if plan.session is not None:
        return {"name": name, "value": plan.session}
    # A pod's name may be longer than a common name can be, and isn't settled yet where it is generated.
    return {"name": name, "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.uid"}}}


def _mount(volume: str, path: str, *, read_only: bool = False) -> Json:
    return {"name": volume, "mountPath": path} | ({"readOnly": True} if read_only else {})
