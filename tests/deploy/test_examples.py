"""The examples: valid as they are, injected as they should be, and admitted by guard afterwards."""

import base64
import json
from pathlib import Path

import jsonpatch
import pytest
import typer.main
import yaml
from typer.core import TyperGroup

from sidecar.cli import app
from sidecar.inject.config import Config
from sidecar.inject.load import parse_config
from sidecar.inject.names import PROFILE_LABEL
from sidecar.inject.review import Webhook, answer
from sidecar.policy import parse_policy
from sidecar.policy.lint import lint_policy
from tests.deploy.chart import EXAMPLES, Object, check, crds, example_values, one, render, versions

MANIFESTS = sorted(path for path in EXAMPLES.glob("*.yaml") if path.name != "values.yaml")
SERVING = EXAMPLES / "pod-serving.yaml"
RENDERED = render(example_values() | {"trust": {"enabled": True}})
OURS = {
    "transparent": ["egress-bootstrap", "egress-netfilter", "egress-sidecar", "egress-fence-check"],
    "restricted": ["egress-bootstrap", "egress-sidecar"],
}


def documents(path: Path) -> list[Object]:
    return [document for document in yaml.safe_load_all(path.read_text()) if document]


def always_list(value: object) -> list[object]:
    return value if isinstance(value, list) else [value]


def config() -> Config:
    return parse_config(one(RENDERED, "ConfigMap", "-webhook")["data"]["config.yaml"])


def pod_of(path: Path) -> Object:
    """The pod that a manifest has, or that its controller would make."""
    found = next(d for d in documents(path) if d["kind"] in ("Pod", "Job", "Deployment"))
    if found["kind"] == "Pod":
        return found
    template = found["spec"]["template"]
    owner = {"apiVersion": "v1", "kind": found["kind"], "name": found["metadata"]["name"], "uid": "u"}
    if found["kind"] == "Deployment":
        owner["kind"] = "ReplicaSet"
    metadata = {"name": "made", "namespace": found["metadata"]["namespace"], "ownerReferences": [owner]}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": template.get("metadata", {}) | metadata,
        "spec": template["spec"],
    }


def ask(webhook: Webhook, pod: Object) -> Object:
    request = {
        "uid": "u",
        "operation": "CREATE",
        "resource": {"group": "", "version": "v1", "resource": "pods"},
        "namespace": pod["metadata"]["namespace"],
        "object": pod,
    }
    response: Object = answer(webhook, request, config())["response"]
    return response


def injected(pod: Object, webhook: Webhook = "mutate") -> Object:
    response = ask(webhook, pod)
    assert response["allowed"], response
    patched: Object = jsonpatch.apply_patch(pod, json.loads(base64.b64decode(response["patch"])))
    return patched


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: str(path.name))
def test_manifests_are_valid(path: Path) -> None:
    custom = crds()
    for document in documents(path):
        for version in versions():
            assert check(document, version, custom) or (document["kind"] == "Bundle" and not custom)


@pytest.mark.parametrize("path", [path for path in MANIFESTS if path != SERVING], ids=lambda path: str(path.name))
def test_no_manifest_mentions_the_sidecar(path: Path) -> None:
    spec = pod_of(path)["spec"]
    assert "initContainers" not in spec
    assert len(spec["containers"]) == 1


@pytest.mark.parametrize(
    ("name", "profile"),
    [
        ("pod-transparent.yaml", "transparent"),
        ("pod-restricted.yaml", "restricted"),
        ("job.yaml", "transparent"),
        ("deployment.yaml", "transparent"),
    ],
)
def test_pods_get_the_sidecar_and_are_admitted(name: str, profile: str) -> None:
    pod = injected(pod_of(EXAMPLES / name))

    assert [container["name"] for container in pod["spec"]["initContainers"]] == OURS[profile]
    assert pod["metadata"]["labels"][PROFILE_LABEL] == profile
    assert ask("validate", pod)["allowed"], ask("validate", pod)
    for version in versions():
        if int(version.partition(".")[2]) >= 29:  # native sidecars
            assert check(pod, version, {})


def test_a_pod_that_makes_its_own_certificate_is_injected_and_admitted_like_any_other() -> None:
    pod = injected(pod_of(SERVING))

    assert [container["name"] for container in pod["spec"]["initContainers"]] == [*OURS["transparent"], "issue"]
    assert ask("validate", pod)["allowed"], ask("validate", pod)


def test_the_issuing_ca_is_mounted_by_the_init_container_alone() -> None:
    spec = injected(pod_of(SERVING))["spec"]
    mounting = {
        container["name"]: mount.get("readOnly")
        for container in [*spec["initContainers"], *spec["containers"]]
        for mount in container.get("volumeMounts", [])
        if mount["name"] == "issuing-ca"
    }
    volume = next(volume for volume in spec["volumes"] if volume["name"] == "tls")

    assert mounting == {"issue": True}
    assert volume["emptyDir"]["medium"] == "Memory"


def test_the_init_containers_command_line_is_one_of_ours() -> None:
    container = pod_of(SERVING)["spec"]["initContainers"][0]
    name, *arguments = container["args"]
    group = typer.main.get_command(app)
    assert isinstance(group, TyperGroup)
    command = group.commands[name]

    parsed = command.make_context(name, list(arguments)).params

    assert {parsed["service"][0], str(parsed["out"]), str(parsed["ca_dir"])} == {"web", "/run/tls", "/run/issuing-ca"}
    known = {variable for parameter in command.params for variable in always_list(parameter.envvar)}
    assert {variable["name"] for variable in container["env"]} <= known


def test_without_the_sidecar_they_are_refused() -> None:
    assert not ask("validate", pod_of(EXAMPLES / "pod-transparent.yaml"))["allowed"]


def test_at_the_restricted_level_nothing_has_a_capability() -> None:
    pod = injected(pod_of(EXAMPLES / "pod-restricted.yaml"))
    for container in [*pod["spec"]["initContainers"], *pod["spec"]["containers"]]:
        context = container["securityContext"]
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert context["allowPrivilegeEscalation"] is False
        assert context.get("runAsUser", pod["spec"]["securityContext"]["runAsUser"]) != 0


@pytest.mark.parametrize(
    ("name", "hours"), [("job.yaml", "24"), ("pod-transparent.yaml", "24"), ("deployment.yaml", "2160")]
)
def test_authorities_live_as_long_as_their_pods(name: str, hours: str) -> None:
    arguments = injected(pod_of(EXAMPLES / name))["spec"]["initContainers"][0]["args"]
    assert arguments[arguments.index("--validity-hours") + 1] == hours


def test_trust_alone_comes_without_a_sidecar() -> None:
    pod = injected(pod_of(EXAMPLES / "trust-only.yaml"), "trust")
    variables = {variable["name"]: variable["value"] for variable in pod["spec"]["containers"][0]["env"]}
    bundle = next(d for d in documents(EXAMPLES / "trust-only.yaml") if d["kind"] == "Bundle")

    assert "initContainers" not in pod["spec"]
    volume = next(v for v in pod["spec"]["volumes"] if "configMap" in v)
    assert volume["configMap"]["name"] == bundle["metadata"]["name"]
    assert variables["SSL_CERT_FILE"].endswith("/" + bundle["spec"]["target"]["configMap"]["key"])


def test_the_policy_is_valid_and_raises_no_eyebrow() -> None:
    data = one(RENDERED, "ConfigMap", "-agents", namespace="agents")["data"]
    assert lint_policy(parse_policy(data["policy.yaml"])) == ()
