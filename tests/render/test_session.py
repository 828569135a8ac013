"""The manifests of one session, as the command prints them."""

import base64
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import kubernetes_validate  # type: ignore[import-untyped]
import pytest
import yaml
from typer.testing import CliRunner

from sidecar.cli import app
from sidecar.pki import CaText, parse_ca
from sidecar.policy import parse_policy
from sidecar.render.documents import ManifestError, dump, read_pod

type Json = dict[str, Any]

POLICY = """version: 1
rules:
  - allow: ["api.github.com"]  # the only one
network: {allow_addresses: ["10.20.0.0/16"]}
"""
POD = """apiVersion: v1
kind: Pod
metadata: {name: agent}
spec:
  initContainers: [{name: migrate, image: app}]
  containers:
    - {name: app, image: app, env: [{name: ANSWER, value: "yes"}]}
  volumes: [{name: v, secret: {secretName: s, defaultMode: 0400}}]
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "policy.yaml").write_text(POLICY)
    (tmp_path / "pod.yaml").write_text(POD)
    return tmp_path


def printed(folder: Path, *arguments: str) -> list[Json]:
    command = ["render", "--session", "s7", "--policy", str(folder / "policy.yaml"), "--pod", str(folder / "pod.yaml")]
    result = CliRunner().invoke(app, [*command, "--image", "registry.example/egress:1", *arguments])
    assert result.exit_code == 0, result.output
    return list(yaml.safe_load_all(result.output))


def kinds(made: list[Json]) -> dict[str, Json]:
    return {one["kind"]: one for one in made}


@pytest.mark.parametrize("form", ["native", "classic"])
@pytest.mark.parametrize("profile", ["transparent", "restricted"])
@pytest.mark.parametrize("ca", ["pod", "secret"])
def test_all_of_it_is_valid(folder: Path, form: str, profile: str, ca: str) -> None:
    made = printed(folder, "--form", form, "--profile", profile, "--ca", ca, "--namespace", "team", "--owner-uid", "u1")

    assert [one["kind"] for one in made] == [
        "NetworkPolicy",
        "ConfigMap",
        *(["Secret"] if ca == "secret" else []),
        "Pod",
    ]
    for one in made:
        assert one["metadata"]["namespace"] == "team"
        kubernetes_validate.validate(one, "1.37", strict=True)


def test_the_key_leaves_the_pod_only_if_asked(folder: Path) -> None:
    assert "Secret" not in kinds(printed(folder))

    made = kinds(printed(folder, "--ca", "secret"))
    data = {name: base64.b64decode(value) for name, value in made["Secret"]["data"].items()}
    ca = parse_ca(CaText(data["ca.pem"], data["ca-key.pem"]), datetime.now(UTC))
    assert ca.common_name == "s7"
    volume = next(volume for volume in made["Pod"]["spec"]["volumes"] if volume["name"] == "egress-ca")
    assert volume["secret"]["secretName"] == made["Secret"]["metadata"]["name"]


def test_the_objects_die_with_the_pod_once_its_uid_is_known(folder: Path) -> None:
    for one in printed(folder, "--ca", "secret"):
        assert "ownerReferences" not in one["metadata"]

    for one in printed(folder, "--ca", "secret", "--owner-uid", "7d8f"):
        if one["kind"] == "Pod":
            assert "ownerReferences" not in one["metadata"]
        else:
            assert one["metadata"]["ownerReferences"] == [
                {"apiVersion": "v1", "kind": "Pod", "name": "agent", "uid": "7d8f"}
            ]


def test_the_pod_can_be_printed_alone_and_is_the_same_each_time(folder: Path) -> None:
    (pod,) = printed(folder, "--only", "Pod", "--ca", "secret")

    assert pod == kinds(printed(folder, "--ca", "secret"))["Pod"]
    assert pod["spec"]["volumes"][0]["secret"]["defaultMode"] == 0o400, "read as kubectl reads it"
    assert pod["metadata"]["labels"]["egress-sidecar/session"] == "s7"


def test_the_policy_is_given_as_it_was_written(folder: Path) -> None:
    made = kinds(printed(folder))

    assert made["ConfigMap"]["data"]["policy.yaml"] == POLICY


def test_the_network_policy_leaves_out_private_and_metadata_addresses(folder: Path) -> None:
    policy = kinds(printed(folder))["NetworkPolicy"]["spec"]

    dns, web = policy["egress"]
    assert policy["podSelector"]["matchLabels"] == {"egress-sidecar/session": "s7"}
    assert {port["port"] for port in dns["ports"]} == {53}
    blocks = [peer["ipBlock"] for peer in web["to"]]
    assert {"10.0.0.0/8", "169.254.0.0/16", "192.168.0.0/16"} <= set(blocks[0]["except"])
    assert {"fc00::/7", "fe80::/10"} <= set(blocks[1]["except"])
    assert [block["cidr"] for block in blocks[2:]] == ["10.20.0.0/16"], "what the policy excepts"


def test_the_preset_lets_the_cluster_s_api_through_unopened(folder: Path) -> None:
    made = kinds(printed(folder, "--kubernetes-api", "10.96.0.1", "--kubernetes-api", "fd00::1"))

    text = made["ConfigMap"]["data"]["policy.yaml"]
    assert parse_policy(text).rules[0].verdict == "passthrough"
    assert {"10.96.0.1", "fd00::1", "kubernetes.default.svc"} <= set(yaml.safe_load(text)["rules"][0]["passthrough"])
    assert yaml.safe_load(text)["rules"][1] == {"allow": ["api.github.com"]}
    cidrs = [peer["ipBlock"]["cidr"] for peer in made["NetworkPolicy"]["spec"]["egress"][1]["to"]]
    assert "10.96.0.1/32" in cidrs


def test_probes_can_be_left_out(folder: Path) -> None:
    pod = kinds(printed(folder, "--no-probes"))["Pod"]

    assert not [key for one in pod["spec"]["initContainers"] for key in one if key.endswith("Probe")]


@pytest.mark.parametrize(
    ("arguments", "pod", "message"),
    [
        pytest.param(["--session", "S_7"], POD, "can't be part of an object's name", id="an id that is no name"),
        pytest.param([], "kind: Deployment\napiVersion: apps/v1", "not v1 Pod", id="another kind"),
        pytest.param([], f"{POD}---\n{POD}", "holds 2 documents", id="two pods"),
        pytest.param([], "a: [", "not valid YAML", id="no YAML"),
        pytest.param([], POD.replace("spec:", "spec:\n  hostNetwork: true"), "host's network", id="host network"),
        pytest.param(["--kubernetes-api", "api"], POD, "no address", id="a name for the API's address"),
    ],
)
def test_mistakes_are_told(folder: Path, arguments: list[str], pod: str, message: str) -> None:
    (folder / "pod.yaml").write_text(pod)
    command = ["render", "--session", "s7", "--policy", str(folder / "policy.yaml"), "--pod", str(folder / "pod.yaml")]

    result = CliRunner().invoke(app, [*command, "--image", "i", *arguments])

    assert result.exit_code != 0
    assert message in result.output + str(result.exception)


@pytest.mark.parametrize(
    "value",
    [
        "yes",
        "on",
        "0644",
        "1e3",
        "null",
        "~",
        "",
        " a",
        "a: b",
        "# no",
        "two\nlines\n",
        "two\nlines",
        "\nempty first\n",
        "tab\t\n",
        "trailing \n",
        "x\n\n",
        "ä\u2028\n",
        "2026-01-01",
        "-",
        "\x00",
        "'",
        '"',
        True,
        None,
        7,
        [],
        {},
        [[1], {"a": []}],
        {"no": "no", "a b": {"c": ["-x"]}},
    ],
)
def test_what_is_written_is_read_back_the_same(value: Any) -> None:
    document = {"value": value, "list": [value, {"key": value}]}

    assert yaml.safe_load(dump([document])) == document


def test_a_pod_with_a_value_that_isn_t_json_is_refused() -> None:
    with pytest.raises(ManifestError, match="quote dates"):
        read_pod(POD.replace("{name: agent}", "{name: agent, annotations: {on: 2026-01-01}}"), "pod.yaml")
