"""
The webhook's configuration file, as pydantic sees it.

The nine keys at the top are those of robertlestak/cainjector, so that its file is valid here; the others are ours.
Keys are written as in Kubernetes, in camel case.
"""

import re
from fnmatch import fnmatchcase
from functools import cached_property
from ipaddress import ip_network
from pathlib import PurePosixPath
from typing import Annotated, Any, Final, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator
from pydantic.alias_generators import to_camel

from sidecar.hosts import HostError, parse_authority
from sidecar.netfilter.ruleset import SIDECAR_UID

SYSTEM_BUNDLES: Final = ("/etc/ssl/certs/ca-certificates.crt", "/etc/ssl/cert.pem")
CLUSTER_NAMES: Final = (".svc", ".cluster.local")

_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?\Z")
_OBJECT = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?\Z")  # RFC 1123 subdomain, as Kubernetes names objects
_KEY = re.compile(r"[-._a-zA-Z0-9]{1,253}\Z")  # of a ConfigMap or a Secret


def _object_name(text: str) -> str:
    if not _OBJECT.match(text):
        raise ValueError(f"{text!r} is no name of an object; write lower-case letters, digits, '-' and '.'")
    return text


def _key(text: str) -> str:
    if not _KEY.match(text) or text in (".", ".."):
        raise ValueError(f"{text!r} is no key of a ConfigMap or Secret; write one such as 'ca-certificates.crt'")
    return text


def _folder(text: str) -> str:
    path = PurePosixPath(text)
    if not path.is_absolute() or ".." in path.parts or path == PurePosixPath("/") or ":" in text:
        raise ValueError(f"{text!r} is no absolute path of a mount; write one such as '/etc/egress/trust'")
    return str(path)


def _namespaces(text: str) -> str:
    if not _LABEL.match(text.replace("*", "x")):
        raise ValueError(f"{text!r} is no name of a namespace; write one such as 'team-a' or 'team-*'")
    return text


def _policy_name(text: str) -> str:
    if not _LABEL.match(text) or len(text) > 63:  # it becomes the value of a label
        raise ValueError(f"{text!r} is no name of a policy; write 1 to 63 lower-case letters, digits and '-'")
    return text


def _listener(text: str) -> str:
    try:
        authority = parse_authority(text)
    except HostError:
        authority = None
    if authority is None or authority.host.address is None or authority.port is None:
        raise ValueError(f"{text!r} isn't ADDRESS:PORT; write '0.0.0.0:14120', or '[::]:14120'")
    return text


def _network(text: str) -> str:
    try:
        ip_network(text)
    except ValueError:
        raise ValueError(f"{text!r} is no network; write one such as '10.20.0.0/16'") from None
    return text


Listener = Annotated[str, AfterValidator(_listener)]
Network = Annotated[str, AfterValidator(_network)]
Port = Annotated[int, Field(ge=1, le=65535)]
PolicyName = Annotated[str, AfterValidator(_policy_name)]
ObjectName = Annotated[str, AfterValidator(_object_name)]
DataKey = Annotated[str, AfterValidator(_key)]
Folder = Annotated[str, AfterValidator(_folder)]
Namespaces = Annotated[str, AfterValidator(_namespaces)]  # "*" stands for any characters


class _Document(BaseModel):
    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        frozen=True,
        alias_generator=to_camel,
        validate_by_name=False,
        validate_by_alias=True,
    )


class PolicyChoice(_Document):
    """A policy by the name that pods choose it by. Its ConfigMap lies in the pod's namespace."""

    name: PolicyName
    config_map: ObjectName
    key: DataKey = "policy.yaml"


class NamespaceRule(_Document):
    """What holds for the pods of some namespaces; the first rule that matches a namespace counts."""

    match: list[Namespaces] = Field(min_length=1)
    inject: Literal["always", "onRequest"] = "always"
    policies: list[PolicyName] = Field(min_length=1)  # the first is for pods that choose none
    enforce: bool = False  # guard: a pod without the sidecar, or with a way around it, is refused
    profile: Literal["transparent", "restricted"] = "transparent"
    form: Literal["native", "classic"] | None = None  # None: as `sidecar` has it
    ca_secret: ObjectName | None = None  # None: the CA is made in the pod


class SidecarDocument(_Document):
    """The containers that are injected."""

    image: str = ""
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] = "IfNotPresent"
    form: Literal["native", "classic"] = "native"  # native: Kubernetes 1.29 and later
    uid: int = Field(default=SIDECAR_UID, ge=1, lt=2**31)  # user and group; the workload must not have it
    session_hours: int = Field(default=24, ge=1)  # validity of the CA for bare pods and Jobs
    service_hours: int = Field(default=2160, ge=1)  # for everything else that owns a pod: Deployments, StatefulSets, …
    resources: dict[str, Any] = Field(
        default_factory=lambda: {"requests": {"cpu": "20m", "memory": "128Mi"}, "limits": {"memory": "512Mi"}}
    )
    health_listen: Listener = "0.0.0.0:14120"  # of `sidecar run`: probes come from the node
    exclude_cidrs: list[Network] = Field(default_factory=list)  # of `sidecar netfilter`
    exclude_ports: list[Port] = Field(default_factory=list)
    expect_allowed: list[str] = Field(default_factory=list)  # of `sidecar fence check`
    denied_name: str | None = None
    system_bundles: list[Folder] = Field(default_factory=lambda: list(SYSTEM_BUNDLES))
    no_proxy: list[str] = Field(default_factory=lambda: list(CLUSTER_NAMES))  # profile restricted
    run_arguments: list[str] = Field(default_factory=list)  # more options for `sidecar run`
    probes: bool = True


class GuardDocument(_Document):
    """How strict the guard is in enforced namespaces."""

    require_run_as_user: bool = False  # an image's own user can't be seen from outside
    allow_host_path: bool = False
    allow_host_aliases: bool = False
    ephemeral_containers: Literal["refuse", "check"] = "refuse"


class Config(_Document):
    """The whole file."""

    # cainjector's: trust only.
    inject: bool = False
    config_map: ObjectName | None = None
    secret: ObjectName | None = None
    mount_path: Folder = "/etc/egress/trust"
    cert_file: DataKey = "ca-certificates.crt"
    set_env_var: bool = True
    include_namespaces: list[Namespaces] = Field(default_factory=list)
    exclude_namespaces: list[Namespaces] = Field(default_factory=list)
    exclude_containers: list[str] = Field(default_factory=list)
    # Ours.
    annotation_domains: list[str] = Field(default_factory=lambda: ["cainjector.lestak.sh"])  # beside our own
    exempt_namespaces: list[Namespaces] = Field(
        default_factory=lambda: ["kube-system", "kube-public", "kube-node-lease"]
    )
    namespaces: list[NamespaceRule] = Field(default_factory=list)
    policies: list[PolicyChoice] = Field(default_factory=list)
    sidecar: SidecarDocument = Field(default_factory=SidecarDocument)
    guard: GuardDocument = Field(default_factory=GuardDocument)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.config_map and self.secret:
            raise ValueError("configMap and secret exclude each other; keep the one that holds the bundle")
        if self.namespaces and not self.sidecar.image:
            raise ValueError("sidecar.image is missing, and namespaces ask for the sidecar; name the image")
        known = {policy.name for policy in self.policies}
        for number, rule in enumerate(self.namespaces):
            for name in rule.policies:
                if name not in known:
                    raise ValueError(f"namespaces[{number}].policies: there is no policy {name!r}; add it to policies")
            if rule.enforce and rule.inject != "always":
                raise ValueError(f"namespaces[{number}]: enforce needs inject: always; write that, or leave it out")
        return self

    @cached_property
    def by_name(self) -> dict[str, PolicyChoice]:
        return {policy.name: policy for policy in self.policies}

    def exempts(self, namespace: str) -> bool:
        return matches(self.exempt_namespaces, namespace)

    def rule_for(self, namespace: str) -> NamespaceRule | None:
        """The first rule for this namespace; none for those that are exempt."""
        if self.exempts(namespace):
            return None
        return next((rule for rule in self.namespaces if matches(rule.match, namespace)), None)


def matches(patterns: list[str], namespace: str) -> bool:
    return any(fnmatchcase(namespace, pattern) for pattern in patterns)
