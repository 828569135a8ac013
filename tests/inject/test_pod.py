"""What is in a pod after injection, part by part. That nothing else is, the live tests show."""

from copy import deepcopy
from typing import Any

import pytest

from sidecar.inject import names
from sidecar.inject.load import parse_config
from sidecar.inject.review import change
from sidecar.inject.workload import FORBIDDEN
from tests.inject.pods import CASES, CONFIG, Case, container, lestak, ours, pod

type Json = dict[str, Any]

CONFIGURATION = parse_config(CONFIG)


def made(namespace: str, new: Json) -> Json:
    changed = change(new, namespace, CONFIGURATION)
    assert changed is not None
    return changed.pod


def one(made: Json, name: str) -> Json:
    everything = [*(made["spec"].get("initContainers") or []), *made["spec"]["containers"]]
    found: Json = next(each for each in everything if each["name"] == name)
    return found


def variables(of: Json) -> dict[str, str]:
    return {variable["name"]: variable.get("value", "") for variable in of.get("env") or []}


def mounts(of: Json) -> dict[str, Json]:
    return {mount["mountPath"]: mount for mount in of.get("volumeMounts") or []}


@pytest.mark.parametrize("case", [case for case in CASES if case.becomes != "refused"], ids=lambda case: case.id)
def test_the_pod_that_was_sent_stays_as_it_is(case: Case) -> None:
    before = deepcopy(case.pod)

    change(case.pod, case.namespace, CONFIGURATION)

    assert case.pod == before


def test_ours_come_first_and_in_order() -> None:
    spec = made("agents-1", pod(initContainers=[container("migrate")]))["spec"]

    assert [each["name"] for each in spec["initContainers"]] == [
        "egress-bootstrap",
        "egress-netfilter",
        "egress-sidecar",
        "egress-fence-check",
        "migrate",
    ]
    assert spec["initContainers"][2]["restartPolicy"] == "Always"
    assert spec["initContainers"][2]["startupProbe"]["httpGet"]["path"] == "/startupz"


def test_only_netfilter_has_a_capability_and_is_root() -> None:
    spec = made("agents-1", pod())["spec"]

    for each in spec["initContainers"]:
        context = each["securityContext"]
        assert context["capabilities"]["drop"] == ["ALL"]
        assert context["capabilities"].get("add", []) == (["NET_ADMIN"] if each["name"] == names.NETFILTER else [])
        assert (context["runAsUser"] == 0) is (each["name"] == names.NETFILTER)
        assert context["readOnlyRootFilesystem"]
        assert not context["allowPrivilegeEscalation"]


def test_the_fence_check_isn_t_the_sidecar_s_user_and_is_in_its_group() -> None:
    context = one(made("agents-1", pod()), names.FENCE_CHECK)["securityContext"]

    assert context["runAsUser"] != 14137
    assert context["runAsGroup"] == 14137


@pytest.mark.parametrize("namespace", ["agents-1", "old", "confined"])
def test_the_key_is_in_memory_and_mounted_where_it_is_needed_alone(namespace: str) -> None:
    spec = made(namespace, pod(initContainers=[container("i")]))["spec"]
    everything = [*spec["initContainers"], *spec["containers"]]

    holders = {each["name"] for each in everything if names.CA_PATH in mounts(each)}
    assert holders == {names.BOOTSTRAP, names.SIDECAR}
    volume = next(volume for volume in spec["volumes"] if volume["name"] == names.CA_VOLUME)
    assert volume["emptyDir"]["medium"] == "Memory"
    listeners = {each["name"] for each in everything if names.CONTROL_PATH in mounts(each)}
    assert listeners == (set() if namespace == "confined" else {names.SIDECAR, names.FENCE_CHECK})


def test_a_ca_from_a_secret_is_mounted_read_only() -> None:
    result = made("vaulted", pod())

    volume = next(volume for volume in result["spec"]["volumes"] if volume["name"] == names.CA_VOLUME)
    assert volume["secret"]["secretName"] == "egress-ca"
    assert mounts(one(result, names.BOOTSTRAP))[names.CA_PATH]["readOnly"]


@pytest.mark.parametrize(
    ("owner", "hours"),
    [(None, "24"), ("Job", "24"), ("ReplicaSet", "2160"), ("StatefulSet", "2160"), ("DaemonSet", "2160")],
)
def test_the_ca_lives_as_long_as_such_a_pod(owner: str | None, hours: str) -> None:
    arguments = one(made("agents-1", pod(owner=owner)), names.BOOTSTRAP)["args"]

    assert arguments[arguments.index("--validity-hours") + 1] == hours


def test_every_container_of_the_pod_trusts() -> None:
    result = made("agents-1", pod(container("a"), container("b"), initContainers=[container("c")]))

    for name in ("a", "b", "c"):
        found = mounts(one(result, name))
        assert found["/etc/egress/trust"]["readOnly"]
        assert found["/etc/ssl/certs/ca-certificates.crt"]["subPath"] == "bundle.pem"
        assert found["/etc/ssl/cert.pem"]["readOnly"]
        assert variables(one(result, name))["SSL_CERT_FILE"] == "/etc/egress/trust/bundle.pem"
        assert variables(one(result, name))["NODE_EXTRA_CA_CERTS"] == "/etc/egress/trust/ca.pem"


def test_what_the_user_has_set_is_kept() -> None:
    own = container(
        env=[{"name": "SSL_CERT_FILE", "value": "/own.pem"}],
        volumeMounts=[{"name": "v", "mountPath": "/etc/ssl/certs"}],
        securityContext={"capabilities": {"add": ["NET_BIND_SERVICE"], "drop": ["net_raw"]}, "runAsUser": 5},
    )
    result = one(made("agents-1", pod(own, volumes=[{"name": "v", "emptyDir": {}}])), "app")

    assert variables(result)["SSL_CERT_FILE"] == "/own.pem"
    assert "/etc/ssl/certs/ca-certificates.crt" not in mounts(result), "not below a mount of the user's"
    assert "/etc/ssl/cert.pem" in mounts(result)
    assert result["securityContext"]["runAsUser"] == 5
    assert result["securityContext"]["capabilities"]["add"] == ["NET_BIND_SERVICE"]
    assert set(result["securityContext"]["capabilities"]["drop"]) == {"net_raw", *FORBIDDEN} - {"NET_RAW"}


@pytest.mark.parametrize("path", ["/etc/egress/trust", "/etc/egress", "/etc"])
def test_no_variable_names_a_file_that_is_not_mounted(path: str) -> None:
    own = pod(container(volumeMounts=[{"name": "v", "mountPath": path}]), volumes=[{"name": "v", "emptyDir": {}}])
    changed = change(own, "agents-1", parse_config(CONFIG))
    assert changed is not None

    assert variables(one(changed.pod, "app")) == {}
    assert any(f"of its own at {names.TRUST_PATH} or above" in warning for warning in changed.warnings)


def test_an_excluded_container_keeps_its_trust_and_is_fenced_all_the_same() -> None:
    result = one(made("agents-1", pod(container("istio-proxy"), container("app"))), "istio-proxy")

    assert variables(result) == {}
    assert mounts(result) == {}
    assert result["securityContext"]["allowPrivilegeEscalation"] is False


@pytest.mark.parametrize(
    ("annotation", "paths"),
    [
        ("rhel", {"/etc/pki/tls/certs/ca-bundle.crt", "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem"}),
        ("none", set()),
        ("/opt/app/ca.pem, suse", {"/opt/app/ca.pem", "/var/lib/ca-certificates/ca-bundle.pem"}),
    ],
)
def test_the_system_s_bundle_by_annotation(annotation: str, paths: set[str]) -> None:
    result = made("agents-1", pod(annotations=ours(systemBundles=annotation)))

    assert set(mounts(one(result, "app"))) - {"/etc/egress/trust"} == paths


def test_the_policy_s_folder_is_mounted_so_that_it_reloads() -> None:
    result = made("agents-1", pod(annotations=ours(policy="strict")))

    volume = next(volume for volume in result["spec"]["volumes"] if volume["name"] == names.POLICY_VOLUME)
    assert volume["configMap"] == {
        "name": "egress-policy-strict",
        "items": [{"key": "strict.yaml", "path": "policy.yaml"}],
    }
    assert "subPath" not in mounts(one(result, names.SIDECAR))[names.POLICY_PATH]
    assert result["metadata"]["labels"][names.POLICY_LABEL] == "strict"


def test_the_restricted_profile_names_the_proxy_and_needs_no_privilege() -> None:
    result = made("confined", pod())

    assert variables(one(result, "app"))["https_proxy"] == "http://127.0.0.1:14101"
    assert variables(one(result, "app"))["NO_PROXY"].split(",") == [
        "localhost",
        "127.0.0.1",
        "::1",
        "$(KUBERNETES_SERVICE_HOST)",
        ".svc",
        ".cluster.local",
    ]
    everything = [*result["spec"]["initContainers"], *result["spec"]["containers"]]
    assert not [each for each in everything if (each.get("securityContext") or {}).get("capabilities", {}).get("add")]
    assert "--transparent" not in one(result, names.SIDECAR)["args"]


def test_a_mount_of_the_key_is_taken_out_with_a_warning() -> None:
    thief = container(volumeMounts=[{"name": names.CA_VOLUME, "mountPath": "/steal"}])

    changed = change(pod(thief), "asking", CONFIGURATION)
    assert changed is None, "a pod that doesn't ask for the sidecar has nothing to steal"

    changed = change(pod(thief, annotations=ours(inject="sidecar")), "asking", CONFIGURATION)
    assert changed is not None
    assert "/steal" not in mounts(one(changed.pod, "app"))
    assert changed.warnings == ("container 'app': the mount of 'egress-ca' was taken out",)


def test_kubectl_means_the_workload_where_the_sidecar_is_the_first_container() -> None:
    key = "kubectl.kubernetes.io/default-container"

    assert made("old", pod(container("main"), container("b")))["metadata"]["annotations"][key] == "main"
    assert made("old", pod(container("main"), container("b"), annotations={key: "b"}))["metadata"]["annotations"][
        key
    ] == ("b")
    assert "annotations" not in made("agents-1", pod())["metadata"]


def test_where_nothing_is_enforced_holes_are_told_as_warnings() -> None:
    new = pod(container(securityContext={"privileged": True}), annotations=ours(inject="sidecar"))

    changed = change(new, "asking", CONFIGURATION)

    assert changed is not None
    assert any("privileged" in warning for warning in changed.warnings)


def test_trust_alone_uses_the_bundle_that_is_there() -> None:
    keys = lestak(inject="true", configMap="mine", mountPath="/cacerts", certFile="ca.crt")
    result = made("elsewhere", pod(initContainers=[container("i")], annotations=keys))

    assert result["spec"]["volumes"] == [{"name": "egress-bundle", "configMap": {"name": "mine"}}]
    for name in ("i", "app"):
        assert mounts(one(result, name))["/cacerts"]["readOnly"]
        assert variables(one(result, name))["SSL_CERT_FILE"] == "/cacerts/ca.crt"
        assert variables(one(result, name))["REQUESTS_CA_BUNDLE"] == "/cacerts/ca.crt"


@pytest.mark.parametrize(
    ("keys", "value"),
    [
        ({"sslCertFile": "/opt/own.pem"}, "/opt/own.pem"),
        ({"sslCertFile": "own.pem", "mountPath": "/cacerts"}, "/cacerts/own.pem"),
        ({"setEnvVar": "false"}, None),
    ],
)
def test_what_the_variables_name_by_annotation(keys: dict[str, str], value: str | None) -> None:
    result = made("elsewhere", pod(annotations=lestak(inject="true", **keys)))

    assert variables(one(result, "app")).get("SSL_CERT_FILE") == value


def test_an_annotation_for_one_source_replaces_the_configuration_s_other_one() -> None:
    result = made("elsewhere", pod(annotations=lestak(inject="true", secret="mine")))

    assert result["spec"]["volumes"] == [{"name": "egress-bundle", "secret": {"secretName": "mine"}}]


def test_a_container_with_a_mount_of_its_own_there_is_left_alone() -> None:
    own = container(volumeMounts=[{"name": "v", "mountPath": "/etc/egress/trust"}])
    before = pod(own, annotations=lestak(inject="true"), volumes=[{"name": "v", "emptyDir": {}}])

    assert made("elsewhere", before) == before


def test_a_volume_of_the_bundle_that_is_there_already_is_used() -> None:
    volumes = [{"name": "roots", "configMap": {"name": "company-bundle"}}, {"name": "egress-bundle", "emptyDir": {}}]
    result = made("elsewhere", pod(annotations=lestak(inject="true"), volumes=volumes))

    assert result["spec"]["volumes"] == volumes
    assert mounts(one(result, "app"))["/etc/egress/trust"]["name"] == "roots"


def test_a_name_that_is_taken_isn_t_used_for_the_bundle() -> None:
    volumes = [{"name": "egress-bundle", "emptyDir": {}}]
    result = made("elsewhere", pod(annotations=lestak(inject="true"), volumes=volumes))

    assert result["spec"]["volumes"][1]["name"] == "egress-bundle-1"
