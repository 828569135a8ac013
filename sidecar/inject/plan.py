"""What one pod is to get: settled values, from which its containers and volumes are made."""

from dataclasses import dataclass, field
from typing import Literal

from sidecar.inject.config import PolicyChoice, SidecarDocument
from sidecar.inject.names import Json, items

# Owners whose pods live for one piece of work; all others keep theirs for as long as nobody changes them.
_SHORT_LIVED = frozenset({"Job"})


@dataclass(frozen=True, slots=True, kw_only=True)
class SidecarPlan:
    """The full sidecar for one pod."""

    settings: SidecarDocument
    policy: PolicyChoice
    profile: Literal["transparent", "restricted"]
    form: Literal["native", "classic"]
    validity_hours: int
    ca_secret: str | None = None  # None: the CA is made in the pod, and its key stays in memory
    session: str | None = None  # None: the pod's UID
    system_bundles: tuple[str, ...] = ()
    untrusting: frozenset[str] = field(default_factory=frozenset)  # containers that keep the trust they have

    @property
    def transparent(self) -> bool:
        return self.profile == "transparent"

    @property
    def native(self) -> bool:
        return self.form == "native"

    @property
    def health_port(self) -> int:
        return int(self.settings.health_listen.rpartition(":")[2])


@dataclass(frozen=True, slots=True, kw_only=True)
class TrustPlan:
    """A bundle that exists already, for one pod: what cainjector does."""

    source: Literal["configMap", "secret"]
    name: str
    mount_path: str
    cert_file: str
    set_env_var: bool
    ssl_cert_file: str | None = None  # what the variables name, where that isn't the bundle itself
    excluded: frozenset[str] = field(default_factory=frozenset)

    @property
    def path(self) -> str:
        """What the variables hold."""
        return self.ssl_cert_file or f"{self.mount_path}/{self.cert_file}"


def validity_hours(pod: Json, settings: SidecarDocument) -> int:
    """How long the CA of a pod lives, by who owns the pod: clients read the bundle once, when they start."""
    owners = [owner.get("kind") for owner in items(pod.get("metadata") or {}, "ownerReferences")]
    short = all(kind in _SHORT_LIVED for kind in owners)
    return settings.session_hours if short else settings.service_hours
