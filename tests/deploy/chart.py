"""The chart, rendered by Helm's own code, and what its output is checked with."""

from copy import deepcopy
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, Final

import kubernetes_validate  # type: ignore[import-untyped]
import yaml
from helm_python import Chart
from jsonschema import Draft202012Validator

# It parses a version's definitions, megabytes of JSON, anew for each object.
kubernetes_validate.utils.schema_contents = lru_cache(maxsize=40)(kubernetes_validate.utils.schema_contents)

type Object = dict[str, Any]

ROOT: Final = Path(__file__).parents[2]
CHART: Final = ROOT / "deploy" / "helm" / "egress-sidecar"
EXAMPLES: Final = ROOT / "deploy" / "examples"
CRDS: Final = ROOT.parent / "shared" / "crds"
RELEASE, NAMESPACE = "egress-sidecar", "egress-system"

# Every switch on, every list filled.
ALL_ON: Final[Object] = {
    "image": {"repository": "registry.example.com/egress-sidecar", "digest": f"sha256:{'a' * 64}"},
    "imagePullSecrets": [{"name": "pull"}],
    "policies": [
        {
            "name": "agents",
            "document": {
                "version": 1,
                "default": "deny",
                "rules": [{"allow": ["api.github.com"]}],
                "network": {"allow_addresses": ["10.20.0.0/16", "10.30.0.1", "fd00::1"]},
            },
            "namespaces": ["extra"],
        },
        {"name": "own", "configMap": "made-elsewhere", "key": "p.yaml"},
        {"name": "text", "document": "version: 1\ndefault: deny\n"},
    ],
    "namespaces": [
        {"match": ["agents"], "create": True, "policies": ["agents", "own", "text"], "enforce": True},
        {"match": ["agents-restricted"], "create": True, "policies": ["agents"], "profile": "restricted"},
        {"match": ["team-*"], "policies": ["agents"], "inject": "onRequest", "form": "classic", "caSecret": "ca"},
    ],
    "trust": {"enabled": True, "configMap": "bundle", "excludeNamespaces": ["kube-*"]},
    "config": {"sidecar": {"sessionHours": 12}, "guard": {"requireRunAsUser": True}},
    "webhook": {
        "priorityClassName": "system-cluster-critical",
        "nodeSelector": {"kubernetes.io/os": "linux"},
        "tolerations": [{"operator": "Exists"}],
        "podAnnotations": {"example.com/a": "b"},
    },
    "tls": {"source": "certManager"},
    "networkPolicies": {
        "resolver": {"cidrs": ["169.254.20.10/32"]},
        "extraEgress": [{"to": [{"ipBlock": {"cidr": "10.96.0.1/32"}}], "ports": [{"port": 443, "protocol": "TCP"}]}],
    },
    "policyEditors": [{"kind": "Group", "name": "security", "apiGroup": "rbac.authorization.k8s.io"}],
    "policyProtection": {"enabled": True, "users": ["ci"]},
    "monitoring": {
        "podMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
        "prometheusRule": {"enabled": True, "labels": {"release": "prometheus"}},
    },
}


def with_values(**changes: Any) -> Object:
    """All on, with some of it replaced."""
    return deepcopy(ALL_ON) | changes


def example_values() -> Object:
    values: Object = yaml.safe_load((EXAMPLES / "values.yaml").read_text())
    return values


def render(values: Object | None = None, *, namespace: str = NAMESPACE) -> list[Object]:
    """The objects that an installation makes."""
    with Chart.load(CHART) as chart:
        texts = chart.render(values or {}, name=RELEASE, namespace=namespace)
    return [
        document
        for path, text in sorted(texts.items())
        if not path.endswith(".txt")
        for document in yaml.safe_load_all(text)
        if document
    ]


def one(objects: list[Object], kind: str, name: str = "", *, namespace: str | None = None) -> Object:
    """The one of this kind; with a name, or the end of one."""
    found = [
        o
        for o in objects
        if o["kind"] == kind
        and o["metadata"]["name"].endswith(name)
        and (namespace is None or o["metadata"].get("namespace") == namespace)
    ]
    assert len(found) == 1, [f"{o['kind']}/{o['metadata']['name']}" for o in objects]
    return found[0]


def versions() -> list[str]:
    """Kubernetes' versions that are known strictly, as ``1.37``."""
    folder = Path(kubernetes_validate.__file__).parent / "kubernetes-json-schema"
    return sorted(
        {".".join(path.name[1:].split(".")[:2]) for path in folder.glob("v*-strict")},
        key=lambda version: int(version.partition(".")[2]),
    )


@cache
def crds() -> dict[tuple[str, str], Any]:
    """(apiVersion, kind) -> schema, of those custom resources whose definitions are at hand."""
    found = {}
    for path in CRDS.glob("*.yaml"):
        spec = yaml.load(path.read_text(), getattr(yaml, "CSafeLoader", yaml.SafeLoader))["spec"]
        for version in spec["versions"]:
            key = (f"{spec['group']}/{version['name']}", spec["names"]["kind"])
            found[key] = _closed(version["schema"]["openAPIV3Schema"])
    return found


def check(document: Object, version: str, custom: dict[tuple[str, str], Any]) -> bool:
    """Validate one object strictly; False where nothing is known of its kind."""
    key = (document["apiVersion"], document["kind"])
    if key in custom:
        Draft202012Validator(custom[key]).validate(document)
        return True
    try:
        kubernetes_validate.validate(document, version, strict=True)
    except kubernetes_validate.SchemaNotFoundError:
        return False
    return True


def _closed(schema: Any) -> Any:
    """An API server drops fields that a definition doesn't have; here they are errors."""
    if isinstance(schema, list):
        return [_closed(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    made = {key: _closed(part) for key, part in schema.items()}
    if isinstance(made.get("properties"), dict) and not schema.get("x-kubernetes-preserve-unknown-fields"):
        is_metadata = set(made["properties"]) == {"metadata"}
        if made.get("type") == "object" and not is_metadata:
            made.setdefault("additionalProperties", False)
    return made
