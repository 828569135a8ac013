"""What is done to the pod's own containers: trust mounted and named, the explicit proxy named, privileges dropped."""

import posixpath
from collections.abc import Iterable
from functools import lru_cache
from pathlib import PurePosixPath
from typing import Final

from sidecar.inject import names
from sidecar.inject.names import Json, items, section
from sidecar.inject.plan import SidecarPlan, TrustPlan
from sidecar.trust.env import BUNDLE, JAVA, java_options, java_proxy_options, pem_variables, with_java_options

# Whoever has one of these gets past the fence: becomes the sidecar's user, sends below the rules, changes them, or
# takes over a process that may.
FORBIDDEN: Final = (
    "SETUID",
    "SETGID",
    "NET_RAW",
    "NET_ADMIN",
    "SYS_ADMIN",
    "SYS_PTRACE",
    "SYS_MODULE",
    "BPF",
)


_OWN_TRUST: Final = "-Djavax.net.ssl.trustStore="
_OWN_PROXY: Final = "proxyHost="


def trust_folder(container: Json, plan: SidecarPlan) -> list[str]:
    """
    Mount the trust folder, and its bundle over the system's, where the container has nothing of its own there.

    Returns:
        What its author should know. Where the folder isn't mounted, no variable names files in it either.
    """
    mounted = _add_mount(container, {"name": names.TRUST_VOLUME, "mountPath": names.TRUST_PATH, "readOnly": True})
    for path in plan.system_bundles:
        mount = {"name": names.TRUST_VOLUME, "mountPath": path, "subPath": BUNDLE, "readOnly": True}
        _add_mount(container, mount)
    if not mounted:
        return [
            f"container '{container.get('name')}' has a mount of its own at {names.TRUST_PATH} or above, "
            "and gets no variables for trust"
        ]
    add_variables(container, _variables(names.TRUST_PATH).items())
    return add_java_options(container, java_options(PurePosixPath(names.TRUST_PATH)), unless=_OWN_TRUST)


def bundle(container: Json, plan: TrustPlan, volume: str) -> None:
    """
    Mount a bundle that exists already, and name it.

    A container that has something else at that path has its own idea of trust, and is left alone.
    """
    if not _add_mount(container, {"name": volume, "mountPath": plan.mount_path, "readOnly": True}):
        return
    if plan.set_env_var:
        known = _variables(plan.mount_path)
        files = [name for name, value in known.items() if value.startswith(f"{plan.mount_path}/")]
        switches = [(name, value) for name, value in known.items() if name not in files]
        add_variables(container, [(name, plan.path) for name in files] + switches)


def explicit_proxy(container: Json, plan: SidecarPlan) -> list[str]:
    """
    Name the proxy, in both spellings. Kubernetes puts the API's address into the list of exceptions.

    Returns:
        What its author should know.
    """
    proxy = f"http://127.0.0.1:{names.EXPLICIT_PORT}"
    exceptions = ["localhost", "127.0.0.1", "::1", "$(KUBERNETES_SERVICE_HOST)", *plan.settings.no_proxy]
    variables = [(name, proxy) for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")]
    variables.append(("NO_PROXY", ",".join(exceptions)))
    add_variables(container, variables + [(name.lower(), value) for name, value in variables])
    add_variables(container, [("NODE_USE_ENV_PROXY", "1")])
    java = java_proxy_options(proxy, _java_exceptions(exceptions))
    return add_java_options(container, java, unless=_OWN_PROXY)


def drop_privileges(container: Json) -> None:
    """
    Drop what would get past the fence, where the pod's author hasn't said otherwise.

    What the author has asked for stays: it is the guard's to refuse, not ours to take away in silence. A privileged
    container stays as it is, since the API server refuses a half privileged one.
    """
    context = section(container, "securityContext")
    capabilities = section(context, "capabilities")
    asked = {capability_name(word) for word in items(capabilities, "add")}
    if context.get("privileged") or "SYS_ADMIN" in asked or "ALL" in asked:
        if not capabilities:
            del context["capabilities"]
        return
    if context.get("allowPrivilegeEscalation") is None:
        context["allowPrivilegeEscalation"] = False
    dropped = {capability_name(word) for word in items(capabilities, "drop")}
    if missing := [] if "ALL" in dropped else [word for word in FORBIDDEN if word not in dropped | asked]:
        capabilities["drop"] = [*items(capabilities, "drop"), *missing]


def take_away(container: Json) -> list[str]:
    """
    Remove mounts of what is the sidecar's alone, and writing to the trust folder.

    Returns:
        The volumes that were mounted.
    """
    taken = []
    kept = []
    for mount in items(container, "volumeMounts"):
        if mount.get("name") in names.SECRET_VOLUMES:
            taken.append(str(mount["name"]))
            continue
        kept.append(mount | {"readOnly": True} if mount.get("name") == names.TRUST_VOLUME else mount)
    if container.get("volumeMounts") is not None:
        container["volumeMounts"] = kept
    return taken


def capability_name(word: object) -> str:
    """Runtimes take both spellings, ``CAP_NET_RAW`` as well, in any case."""
    return str(word).upper().removeprefix("CAP_")


def add_variables(container: Json, variables: Iterable[tuple[str, str]]) -> None:
    """Add those that the container doesn't set itself."""
    present = items(container, "env")
    taken = {variable.get("name") for variable in present}
    if added := [{"name": name, "value": value} for name, value in variables if name not in taken]:
        container["env"] = [*present, *added]


def add_java_options(container: Json, options: str, *, unless: str) -> list[str]:
    """
    Append to ``JAVA_TOOL_OPTIONS``, or set it; once. Who has said *unless* there keeps it.

    Returns:
        A warning where the value comes from elsewhere: nothing can be appended to what isn't known.
    """
    variable = next((one for one in items(container, "env") if one.get("name") == JAVA), None)
    if variable is None:
        container["env"] = [*items(container, "env"), {"name": JAVA, "value": options}]
    elif variable.get("valueFrom") is not None:
        return [
            f"container '{container.get('name')}': {JAVA} comes from elsewhere (valueFrom), and can't be appended to; "
            f"add {options} there, or Java won't know the sidecar"
        ]
    elif unless not in (present := variable.get("value") or ""):
        container["env"] = [
            one | {"value": with_java_options(present, options)} if one is variable else one for one in container["env"]
        ]
    return []


def _java_exceptions(exceptions: Iterable[str]) -> str:
    """Java wants a star where others take a leading dot, and has loopback by itself."""
    return ",".join(f"*{host}" if host.startswith(".") else host for host in exceptions if host != "::1")


def _add_mount(container: Json, mount: Json) -> bool:
    """
    Mount it, unless something of the container's own is there or above it.

    Returns:
        Whether it is mounted now.
    """
    present = items(container, "volumeMounts")
    if any(_is_same(mount, other) for other in present):
        return True
    path = _path(mount)
    if any(path == above or path.startswith(f"{above.rstrip('/')}/") for above in map(_path, present)):
        return False
    container["volumeMounts"] = [*present, mount]
    return True


def _is_same(mount: Json, other: Json) -> bool:
    keys = ("name", "subPath")
    same_place = _path(mount) == _path(other)
    return same_place and all(mount.get(key, "") == other.get(key, "") for key in keys)


def _path(mount: Json) -> str:
    return posixpath.normpath("/" + str(mount.get("mountPath", "")).strip("/"))


@lru_cache(maxsize=64)  # pods choose the folder
def _variables(folder: str) -> dict[str, str]:
    return pem_variables(PurePosixPath(folder))
