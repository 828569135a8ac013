"""Who gets what: the administrator's configuration decides, and a pod's annotations choose within it."""

from typing import Any

from pydantic import TypeAdapter, ValidationError

from sidecar.inject import annotations
from sidecar.inject.annotations import Wishes
from sidecar.inject.config import Config, DataKey, Folder, NamespaceRule, ObjectName, matches
from sidecar.inject.names import PREFIX, Json, Refusal
from sidecar.inject.plan import SidecarPlan, TrustPlan, validity_hours

type Choice = SidecarPlan | TrustPlan | None


def choose(pod: Json, namespace: str, config: Config) -> Choice:
    """
    Say what a pod gets.

    Raises:
        Refusal: Its annotations ask for what the administrator doesn't offer, or mean nothing.
    """
    if config.exempts(namespace):
        return None
    wishes = annotations.read(pod, config)
    rule = config.rule_for(namespace)
    if rule is not None and (rule.inject == "always" or wishes.sidecar):
        return sidecar_plan(pod, namespace, rule, config, wishes)
    if wishes.sidecar:
        raise Refusal(
            f"the sidecar is asked for, and no policy is meant for namespace '{namespace}'; "
            "ask the administrator for an entry in the webhook's namespaces"
        )
    return _trust_plan(namespace, config, wishes)


def sidecar_plan(pod: Json, namespace: str, rule: NamespaceRule, config: Config, wishes: Wishes) -> SidecarPlan:
    """
    The full sidecar, by the rule of the pod's namespace.

    Raises:
        Refusal: The annotation names a policy that the rule doesn't list.
    """
    name = wishes.policy or rule.policies[0]
    if name not in rule.policies:
        raise Refusal(
            f"annotation {PREFIX}policy: namespace '{namespace}' has no policy {name!r}; "
            f"write one of {', '.join(rule.policies)}, or leave it out"
        )
    settings = config.sidecar
    bundles = settings.system_bundles if wishes.system_bundles is None else wishes.system_bundles
    return SidecarPlan(
        settings=settings,
        policy=config.by_name[name],
        profile=rule.profile,
        form=rule.form or settings.form,
        validity_hours=validity_hours(pod, settings),
        ca_secret=rule.ca_secret,
        system_bundles=tuple(bundles),
        untrusting=frozenset(wishes.words("excludeContainers") or config.exclude_containers),
    )


def _trust_plan(namespace: str, config: Config, wishes: Wishes) -> TrustPlan | None:
    if not (config.inject if wishes.trust is None else wishes.trust):
        return None
    included = _list(wishes, "includeNamespaces", config.include_namespaces)
    excluded = _list(wishes, "excludeNamespaces", config.exclude_namespaces)
    if (included and not matches(included, namespace)) or matches(excluded, namespace):
        return None
    source = annotations.source(wishes, config)
    if source is None:
        raise Refusal(
            f"a bundle is to be mounted, and nothing names one; set configMap or secret, "
            f"or annotate the pod with {PREFIX}configMap"
        )
    text = wishes.keys
    mount_path = _checked(Folder, "mountPath", text.get("mountPath") or config.mount_path)
    ssl_cert_file = text.get("sslCertFile")
    if ssl_cert_file and not ssl_cert_file.startswith("/"):
        ssl_cert_file = f"{mount_path}/{ssl_cert_file}"
    return TrustPlan(
        source=source[0],
        name=_checked(ObjectName, source[0], source[1]),
        mount_path=mount_path,
        cert_file=_checked(DataKey, "certFile", text.get("certFile") or config.cert_file),
        set_env_var=annotations.flag("setEnvVar", text["setEnvVar"]) if "setEnvVar" in text else config.set_env_var,
        ssl_cert_file=ssl_cert_file or None,
        excluded=frozenset(_list(wishes, "excludeContainers", config.exclude_containers)),
    )


def _list(wishes: Wishes, key: str, default: list[str]) -> list[str]:
    by_pod = wishes.words(key)
    return default if by_pod is None else by_pod


def _checked(kind: Any, key: str, text: str) -> str:
    try:
        checked: str = TypeAdapter(kind).validate_python(text)
    except ValidationError as e:
        raise Refusal(f"annotation {key}: {e.errors()[0]['msg'].removeprefix('Value error, ')}") from None
    return checked
