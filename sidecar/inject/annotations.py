"""
What a pod's annotations ask for. They wish; who decides is in `sidecar.inject.choice`.

Our own prefix, and below each domain of the configuration the keys of robertlestak/cainjector. Where both are given,
ours counts. Of that project, we follow the code: an annotation replaces the configuration's value key by key; either of
``configMap`` and ``secret`` replaces both; both together are an error; exclusion of a namespace beats inclusion, though
its README has it the other way round. ``sslCertFile`` is in its author's article and not in its code: here it is what
the variables name instead of the bundle.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from sidecar.inject.config import Config
from sidecar.inject.names import PREFIX, Json, Refusal

_KEYS = frozenset(
    {
        "inject",
        "configMap",
        "secret",
        "mountPath",
        "certFile",
        "sslCertFile",
        "setEnvVar",
        "includeNamespaces",
        "excludeNamespaces",
        "excludeContainers",
    }
)
_TRUE, _FALSE = frozenset({"true", "1", "yes", "on", "enabled"}), frozenset({"false", "0", "no", "off", "disabled"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Wishes:
    """What the annotations say; None where they say nothing."""

    sidecar: bool | None = None  # the full sidecar: yes, no
    trust: bool | None = None  # a bundle alone: yes, no
    policy: str | None = None
    system_bundles: tuple[str, ...] | None = None
    keys: Mapping[str, str]  # cainjector's, other than inject

    def words(self, key: str) -> list[str] | None:
        """A list, separated by commas."""
        text = self.keys.get(key)
        return None if text is None else [word.strip() for word in text.split(",") if word.strip()]


def read(pod: Json, config: Config) -> Wishes:
    """
    Read a pod's annotations.

    Raises:
        Refusal: One of them has a value that means nothing.
    """
    annotations = (pod.get("metadata") or {}).get("annotations") or {}
    keys: dict[str, str] = {}
    trust: bool | None = None
    for prefix in (*(f"{domain}/" for domain in config.annotation_domains), PREFIX):
        found = {key: str(annotations[prefix + key]) for key in _KEYS if prefix + key in annotations}
        if prefix != PREFIX and "inject" in found:
            trust = flag(f"{prefix}inject", found["inject"])
        if {"configMap", "secret"} & found.keys():
            keys = {key: value for key, value in keys.items() if key not in ("configMap", "secret")}
        keys |= found
    keys.pop("inject", None)
    sidecar, own_trust = _own_inject(annotations.get(f"{PREFIX}inject"))
    return Wishes(
        sidecar=sidecar,
        trust=trust if own_trust is None else own_trust,
        policy=annotations.get(f"{PREFIX}policy"),
        system_bundles=_system_bundles(annotations.get(f"{PREFIX}systemBundles")),
        keys=keys,
    )


def flag(name: str, text: str) -> bool:
    """
    Read a yes or a no.

    Raises:
        Refusal: It is neither.
    """
    word = text.strip().lower()
    if word not in _TRUE | _FALSE:
        raise Refusal(f"annotation {name}: {text!r} is neither true nor false; write one of them")
    return word in _TRUE


def _own_inject(text: str | None) -> tuple[bool | None, bool | None]:
    """Sidecar, trust."""
    kinds: dict[str, tuple[bool, bool]] = {"sidecar": (True, False), "trust": (False, True)}
    if text is None:
        return None, None
    if text in kinds:
        return kinds[text]
    if text.strip().lower() in _TRUE | _FALSE:
        return flag(f"{PREFIX}inject", text), False
    raise Refusal(f"annotation {PREFIX}inject: {text!r} means nothing; write 'sidecar', 'trust' or 'false'")


_FAMILIES: Mapping[str, tuple[str, ...]] = {
    "none": (),
    "debian": ("/etc/ssl/certs/ca-certificates.crt",),
    "alpine": ("/etc/ssl/certs/ca-certificates.crt", "/etc/ssl/cert.pem"),
    "rhel": ("/etc/pki/tls/certs/ca-bundle.crt", "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem"),
    "suse": ("/var/lib/ca-certificates/ca-bundle.pem",),
}


def _system_bundles(text: str | None) -> tuple[str, ...] | None:
    if text is None:
        return None
    paths: list[str] = []
    for word in (word.strip() for word in text.split(",")):
        if word in _FAMILIES:
            paths += _FAMILIES[word]
        elif word.startswith("/") and ".." not in word.split("/") and ":" not in word and word.rstrip("/"):
            paths.append(word)
        else:
            known = ", ".join(_FAMILIES)
            raise Refusal(f"annotation {PREFIX}systemBundles: {word!r} is no absolute path, and none of {known}")
    return tuple(dict.fromkeys(paths))


type Source = tuple[Literal["configMap", "secret"], str]


def source(wishes: Wishes, config: Config) -> Source | None:
    """
    Where the bundle lies: by annotation, else by configuration.

    Raises:
        Refusal: Both a ConfigMap and a Secret are named.
    """
    by_pod = {key: wishes.keys[key] for key in ("configMap", "secret") if wishes.keys.get(key)}
    if len(by_pod) == 2:
        raise Refusal("annotations name both a configMap and a secret; keep the one that holds the bundle")
    config_map, secret = (
        (by_pod.get("configMap"), by_pod.get("secret")) if by_pod else (config.config_map, config.secret)
    )
    if config_map:
        return "configMap", config_map
    return ("secret", secret) if secret else None
