"""The Helm chart: valid everywhere, says what the code understands, and never locks out what it must not."""

import base64
import re
from fnmatch import fnmatchcase
from ipaddress import ip_address, ip_network
from typing import Any

import cel
import promql_parser
import pytest
import typer.main
import yaml
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from helm_python import HelmError, lint
from typer.core import TyperGroup

from sidecar import __version__, addresses
from sidecar.addresses import AddressKind
from sidecar.cli import app
from sidecar.inject.config import Config
from sidecar.inject.load import parse_config
from sidecar.inject.names import PROFILE_LABEL
from sidecar.metrics import COUNTERS, Gauges, Metrics
from sidecar.policy import parse_policy
from tests.deploy.chart import (
    ALL_ON,
    CHART,
    NAMESPACE,
    ROOT,
    Object,
    check,
    crds,
    example_values,
    one,
    render,
    versions,
    with_values,
)

DEFAULT, ALL, EXAMPLE = render(), render(ALL_ON), render(example_values())
VALUES: dict[str, Object] = {"default": {}, "all on": ALL_ON, "example": example_values()}
# No schema of these is at hand.
UNKNOWN = {"PodMonitor", "PrometheusRule"}


@pytest.mark.parametrize("version", versions())
def test_every_object_is_valid(version: str) -> None:
    custom, unknown = crds(), set()
    for document in [*DEFAULT, *ALL]:
        if not check(document, version, custom):
            unknown.add(document["kind"])

    without_crds = set() if custom else {"Certificate", "Issuer"}
    before_130 = {"ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"}
    young = before_130 if int(version.partition(".")[2]) < 30 else set()
    assert unknown == UNKNOWN | without_crds | young


@pytest.mark.parametrize("values", VALUES.values(), ids=list(VALUES))
@pytest.mark.parametrize("kube_version", ["v1.30.0", "v1.37.0"])
def test_helm_has_nothing_to_complain_of(values: Object, kube_version: str) -> None:
    found = lint(CHART, values, strict=True, kube_version=kube_version)

    assert [m for m in found["messages"] if m["severity"] > 1] == []
    assert found["errors"] == []


def test_the_chart_has_the_version_of_what_it_installs() -> None:
    assert yaml.safe_load((CHART / "Chart.yaml").read_text())["appVersion"] == __version__


@pytest.mark.parametrize(
    ("values", "message"),
    [
        pytest.param({"webhok": {}}, "webhok", id="a key that doesn't exist"),
        pytest.param({"tls": {"source": "vault"}}, "source", id="an unknown source of the certificate"),
        pytest.param({"webhook": {"timeoutSeconds": 31}}, "timeoutSeconds", id="longer than an API server waits"),
        pytest.param({"policies": [{"name": "a"}]}, "document", id="a policy without text"),
        pytest.param({"config": {"namespaces": []}}, "config", id="what the chart writes by itself"),
        pytest.param({"image": {"digest": "latest"}}, "digest", id="a digest that is none"),
        pytest.param(
            {"namespaces": [{"match": ["a"], "policies": ["b"]}]}, 'no policy "b"', id="a rule by an unknown policy"
        ),
        pytest.param(
            with_values(namespaces=[{"match": ["kube-system"], "policies": ["agents"]}]), "never covered",
            id="a rule for kube-system",
        ),
        pytest.param(
            with_values(namespaces=[{"match": [NAMESPACE], "policies": ["agents"]}]), "never covered",
            id="a rule for its own namespace",
        ),
        pytest.param(
            with_values(namespaces=[{"match": ["a-*"], "policies": ["agents"], "create": True}]), "can't be created",
            id="a pattern to be created",
        ),
        pytest.param(
            with_values(trust={"enabled": True, "configMap": "a", "secret": "b"}), "exclude each other",
            id="two bundles",
        ),
    ],
)  # fmt: skip
def test_wrong_values_are_told_at_once(values: Object, message: str) -> None:
    with pytest.raises(HelmError, match=re.escape(message)):
        render(values)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        pytest.param({"config": {"sidecar": {"form": "native"}}}, "write classic", id="native sidecars"),
        pytest.param({"policyProtection": {"enabled": True}}, "leave it to RBAC", id="admission policies"),
    ],
)
def test_what_a_cluster_is_too_old_for_is_refused(
    values: Object, message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    # Rendering knows one version of Kubernetes, linting any; but it only writes what it stumbles over, as fd 2.
    lint(CHART, values, kube_version="v1.30.0")
    assert message not in capfd.readouterr().err
    lint(CHART, values, kube_version="v1.28.0")
    assert message in capfd.readouterr().err


def config_of(objects: list[Object]) -> Config:
    return parse_config(one(objects, "ConfigMap", "-webhook")["data"]["config.yaml"])


def test_the_webhook_reads_its_configuration() -> None:
    config = config_of(ALL)

    assert [rule.match for rule in config.namespaces] == [["agents"], ["agents-restricted"], ["team-*"]]
    assert config.by_name["agents"].config_map == "egress-policy-agents"
    assert (config.by_name["own"].config_map, config.by_name["own"].key) == ("made-elsewhere", "p.yaml")
    assert config.sidecar.image == f"registry.example.com/egress-sidecar@sha256:{'a' * 64}"
    assert (config.sidecar.form, config.sidecar.session_hours) == ("native", 12)
    assert (config.config_map, config.inject, config.guard.require_run_as_user) == ("bundle", False, True)
    assert config.exempts(NAMESPACE)
    assert config_of(DEFAULT).namespaces == []


def test_the_webhook_is_started_with_options_that_it_has() -> None:
    group = typer.main.get_command(app)
    assert isinstance(group, TyperGroup)
    inject = group.commands["inject"]
    assert isinstance(inject, TyperGroup)
    known = {option for parameter in inject.commands["serve"].params for option in parameter.opts}
    container = one(ALL, "Deployment")["spec"]["template"]["spec"]["containers"][0]

    assert container["args"][:2] == ["inject", "serve"]
    given = dict(argument.split("=", 1) for argument in container["args"][2:])
    assert given.keys() <= known
    mounts = {mount["mountPath"] for mount in container["volumeMounts"]}
    assert given["--cert-dir"] in mounts
    assert given["--config"].rpartition("/")[0] in mounts
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert given["--listen"] == f"0.0.0.0:{ports['https']}"
    assert given["--health-listen"] == f"0.0.0.0:{ports['health']}"
    assert {container[probe]["httpGet"]["port"] for probe in container if probe.endswith("Probe")} == {"health"}


def test_the_service_leads_to_the_pods() -> None:
    service, template = one(ALL, "Service"), one(ALL, "Deployment")["spec"]["template"]
    assert service["spec"]["selector"].items() <= template["metadata"]["labels"].items()
    assert service["spec"]["ports"][0]["targetPort"] in {
        port["name"] for port in template["spec"]["containers"][0]["ports"]
    }


def webhooks(objects: list[Object]) -> list[Object]:
    return [hook for o in objects if o["kind"].endswith("WebhookConfiguration") for hook in o["webhooks"]]


def covers(hook: Object, namespace: str, labels: dict[str, str]) -> bool:
    """Whether the webhook is called for a namespace, as an API server would say (LabelSelector)."""
    labels = labels | {"kubernetes.io/metadata.name": namespace}
    return all(
        (labels.get(term["key"]) in term["values"]) is (term["operator"] == "In")
        for term in hook["namespaceSelector"]["matchExpressions"]
    )


@pytest.mark.parametrize("objects", [DEFAULT, ALL], ids=["default", "all on"])
def test_no_webhook_covers_the_system_or_itself_whatever_the_labels(objects: list[Object]) -> None:
    for hook in webhooks(objects):
        for namespace in ("kube-system", "kube-public", "kube-node-lease", NAMESPACE):
            for labels in ({}, {"egress-sidecar/inject": "enabled"}):
                assert not covers(hook, namespace, labels), (hook["name"], namespace, labels)


def test_only_opted_in_namespaces_depend_on_the_webhook() -> None:
    opted_in = {"egress-sidecar/inject": "enabled"}
    found = {hook["name"].partition(".")[0]: hook for hook in webhooks(ALL)}

    assert {name: hook["failurePolicy"] for name, hook in found.items()} == {
        "inject": "Fail",
        "guard": "Fail",
        "trust": "Ignore",
    }
    for name in ("inject", "guard"):
        assert covers(found[name], "agents", opted_in)
        assert not covers(found[name], "agents", {})
    assert covers(found["trust"], "others", {})
    assert not covers(found["trust"], "agents", opted_in), "one of the two injects, not both"


def test_each_webhook_asks_at_its_own_place() -> None:
    found = {hook["name"].partition(".")[0]: hook["clientConfig"]["service"] for hook in webhooks(ALL)}

    assert {name: service["path"] for name, service in found.items()} == {
        "inject": "/mutate",
        "trust": "/mutate/trust",
        "guard": "/validate",
    }
    assert {service["port"] for service in found.values()} == {one(ALL, "Service")["spec"]["ports"][0]["port"]}


def test_webhooks_are_quick_and_without_side_effects() -> None:
    for hook in webhooks(ALL):
        assert (hook["sideEffects"], hook["matchPolicy"]) == ("None", "Equivalent")
        assert hook["admissionReviewVersions"] == ["v1"]
        assert 1 <= hook["timeoutSeconds"] <= 30
    assert {h.get("reinvocationPolicy") for h in webhooks([one(ALL, "MutatingWebhookConfiguration")])} == {"IfNeeded"}


def test_guard_sees_every_way_into_a_pod() -> None:
    rules = one(ALL, "ValidatingWebhookConfiguration")["webhooks"][0]["rules"]
    seen = {
        (operation, resource) for rule in rules for operation in rule["operations"] for resource in rule["resources"]
    }
    assert seen == {
        ("CREATE", "pods"),
        ("UPDATE", "pods"),
        ("UPDATE", "pods/ephemeralcontainers"),
        ("CONNECT", "pods/exec"),
        ("CONNECT", "pods/attach"),
    }


def test_the_generated_certificate_is_for_the_service_and_verifies() -> None:
    secret = one(DEFAULT, "Secret")
    data = {key: base64.b64decode(value) for key, value in secret["data"].items()}
    ca, leaf = (x509.load_pem_x509_certificate(data[key]) for key in ("ca.crt", "tls.crt"))
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value

    assert data.keys() == {"ca.crt", "tls.crt", "tls.key"}, "the CA's key is thrown away"
    leaf.verify_directly_issued_by(ca)
    assert load_pem_private_key(data["tls.key"], None).public_key() == leaf.public_key()
    assert f"{one(DEFAULT, 'Service')['metadata']['name']}.{NAMESPACE}.svc" in names.get_values_for_type(x509.DNSName)
    for hook in webhooks(DEFAULT):
        assert base64.b64decode(hook["clientConfig"]["caBundle"]) == data["ca.crt"]


def test_cert_manager_makes_the_certificate_that_the_webhook_mounts() -> None:
    certificate = one(ALL, "Certificate")
    volumes = one(ALL, "Deployment")["spec"]["template"]["spec"]["volumes"]

    assert [o for o in ALL if o["kind"] == "Secret"] == []
    assert certificate["spec"]["secretName"] in [v.get("secret", {}).get("secretName") for v in volumes]
    assert certificate["spec"]["issuerRef"]["name"] == one(ALL, "Issuer")["metadata"]["name"]
    reference = f"{NAMESPACE}/{certificate['metadata']['name']}"
    for kind in ("MutatingWebhookConfiguration", "ValidatingWebhookConfiguration"):
        assert one(ALL, kind)["metadata"]["annotations"]["cert-manager.io/inject-ca-from"] == reference


def test_policies_are_valid_and_lie_where_pods_look_for_them() -> None:
    made = {
        (o["metadata"]["namespace"], o["metadata"]["name"]): o["data"]
        for o in ALL
        if o["kind"] == "ConfigMap" and o["metadata"]["labels"].get("app.kubernetes.io/component") == "policy"
    }

    assert made.keys() == {
        ("agents", "egress-policy-agents"),
        ("agents", "egress-policy-text"),
        ("agents-restricted", "egress-policy-agents"),
        ("extra", "egress-policy-agents"),
    }
    for data in made.values():
        parse_policy(data["policy.yaml"])


def test_created_namespaces_are_opted_in_and_outlive_the_release() -> None:
    for name, level in (("agents", "privileged"), ("agents-restricted", "restricted")):
        namespace = next(o for o in ALL if o["kind"] == "Namespace" and o["metadata"]["name"] == name)
        labels = namespace["metadata"]["labels"]
        assert (labels["egress-sidecar/inject"], labels["pod-security.kubernetes.io/enforce"]) == ("enabled", level)
        assert namespace["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"


def test_the_webhook_may_do_nothing_in_the_cluster() -> None:
    account = one(ALL, "ServiceAccount")
    bound = [s["name"] for o in ALL if o["kind"].endswith("Binding") for s in o.get("subjects", [])]

    assert account["automountServiceAccountToken"] is False
    assert one(ALL, "Deployment")["spec"]["template"]["spec"]["automountServiceAccountToken"] is False
    assert account["metadata"]["name"] not in bound
    assert {o["kind"] for o in ALL} & {"ClusterRole", "ClusterRoleBinding"} == set()
    assert {o["kind"] for o in DEFAULT} & {"Role", "RoleBinding"} == set()


def test_editors_of_policies_may_edit_policies_alone() -> None:
    for role in (o for o in ALL if o["kind"] == "Role"):
        assert [set(rule["verbs"]) for rule in role["rules"]] == [{"get", "update", "patch"}]
        assert role["rules"][0]["resources"] == ["configmaps"]
        assert all(fnmatchcase(name, "egress-policy-*") or name == "made-elsewhere"
                   for name in role["rules"][0]["resourceNames"])  # fmt: skip


@pytest.mark.parametrize(
    ("operation", "username", "groups", "allowed"),
    [
        pytest.param("UPDATE", "root", ["system:masters"], True, id="an administrator may"),
        pytest.param("UPDATE", "ci", [], True, id="a user who is named may"),
        pytest.param("UPDATE", "eve", ["security"], True, id="an editor may, by the group"),
        pytest.param("UPDATE", "tenant", ["system:authenticated"], False, id="whoever else has the right may not"),
        pytest.param("UPDATE", "tenant", None, False, id="nor a user without groups"),
        pytest.param("DELETE", "tenant", ["system:authenticated"], False, id="nor delete it, and make another"),
        pytest.param(
            "DELETE", "system:serviceaccount:kube-system:namespace-controller", [], True,
            id="a namespace that is deleted takes it along",
        ),
        pytest.param(
            "UPDATE", "system:serviceaccount:kube-system:namespace-controller", [], False,
            id="its controller changes nothing",
        ),
    ],
)  # fmt: skip
def test_protected_policies(operation: str, username: str, groups: list[str] | None, allowed: bool) -> None:
    expression = one(ALL, "ValidatingAdmissionPolicy")["spec"]["validations"][0]["expression"]
    user = {"username": username} | ({} if groups is None else {"groups": groups})

    assert cel.evaluate(expression, {"request": {"operation": operation, "userInfo": user}}) is allowed


def test_policies_alone_are_protected() -> None:
    wanted = one(ALL, "ValidatingAdmissionPolicy")["spec"]["matchConstraints"]["objectSelector"]["matchLabels"]

    assert wanted.items() <= one(ALL, "ConfigMap", "-text")["metadata"]["labels"].items()
    assert not wanted.items() <= one(ALL, "ConfigMap", "-webhook")["metadata"]["labels"].items()


def lets_out(policy: Object, address: str, port: int = 443) -> bool:
    """Whether a NetworkPolicy lets TCP out to this address (NetworkPolicy v1, ipBlock and ports)."""
    target = ip_address(address)
    for rule in policy["spec"]["egress"]:
        blocks = [peer["ipBlock"] for peer in rule["to"] if "ipBlock" in peer]
        open_ports = [
            p for p in rule["ports"] if p["protocol"] == "TCP" and p["port"] <= port <= p.get("endPort", p["port"])
        ]
        for block in blocks:
            inside = target in ip_network(block["cidr"])
            if inside and open_ports and not any(target in ip_network(net) for net in block.get("except", [])):
                return True
    return False


def refused_by_the_sidecar() -> list[str]:
    networks = [ip_network(text) for text, kind in addresses._KINDS.items() if kind is not AddressKind.GLOBAL]
    ends = [str(end) for net in networks if net.prefixlen for end in (net.network_address, net.broadcast_address)]
    return sorted({*ends, *map(str, addresses._METADATA)})


@pytest.mark.parametrize("address", refused_by_the_sidecar())
def test_what_the_sidecar_refuses_to_dial_the_network_refuses_too(address: str) -> None:
    assert not lets_out(one(EXAMPLE, "NetworkPolicy", namespace="agents"), address)


def test_the_network_lets_out_what_is_public_but_no_dns() -> None:
    policy = one(EXAMPLE, "NetworkPolicy", namespace="agents")

    for address in ("1.1.1.1", "93.184.215.14", "2606:4700:4700::1111"):
        assert lets_out(policy, address)
        assert not lets_out(policy, address, port=53)
    resolver = policy["spec"]["egress"][0]
    assert resolver["to"][0]["podSelector"] == {"matchLabels": {"k8s-app": "kube-dns"}}
    assert {(port["port"], port["protocol"]) for port in resolver["ports"]} == {(53, "UDP"), (53, "TCP")}


def test_without_the_public_only_what_is_named_stays() -> None:
    values = with_values(networkPolicies={"public": False, "extraEgress": []})
    policy = one(render(values), "NetworkPolicy", namespace="agents")

    assert not lets_out(policy, "1.1.1.1")


def test_what_a_policy_excepts_the_network_lets_through() -> None:
    policy = one(ALL, "NetworkPolicy", namespace="agents")

    for address in ("10.20.255.1", "10.30.0.1", "fd00::1"):
        assert lets_out(policy, address)
    for address in ("10.21.0.1", "10.30.0.2", "fd00::2"):
        assert not lets_out(policy, address)
    assert not lets_out(one(EXAMPLE, "NetworkPolicy", namespace="agents"), "10.20.255.1")


def known_metrics() -> set[str]:
    gauges = Gauges(
        connections=0,
        connections_open=0,
        requests_open=0,
        policy_generation=1,
        ca_seconds=0,
        ca_reload_ok=True,
        events_dropped=0,
        ready=True,
    )
    found = {f"{f.name}_total" if f.type == "counter" else f.name for f in Metrics(lambda: gauges).collect()}
    others = {"kube_deployment_status_replicas_available"}  # kube-state-metrics
    webhook = (ROOT / "sidecar" / "inject" / "server.py").read_text()
    for name in re.findall(r'"(egress_inject_\w+)"', webhook):
        others |= {name, f"{name}_total"}
    return found | others


def rules() -> list[Object]:
    found: list[Object] = one(ALL, "PrometheusRule")["spec"]["groups"][0]["rules"]
    return found


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: str(rule["alert"]))
def test_alerts_ask_for_metrics_and_labels_that_exist(rule: Object) -> None:
    asked = re.findall(r"((?:egress|kube)_\w+)(?:\{([^}]*)\})?", rule["expr"])

    assert asked
    promql_parser.parse(rule["expr"])
    for name, labels in asked:
        assert name in known_metrics()
        if counter := COUNTERS.get(name.removeprefix("egress_").removesuffix("_total")):
            assert set(re.findall(r'(\w+)=~?"', labels)) <= set(counter.labels)
    assert rule["labels"]["severity"] in ("critical", "warning", "info")


def test_every_alert_is_explained() -> None:
    page = (ROOT / "docs" / "metrics.md").read_text()
    assert set(re.findall(r"^\| `(Egress\w+)` \|", page, re.MULTILINE)) == {rule["alert"] for rule in rules()}


def test_pods_with_the_sidecar_are_scraped() -> None:
    monitor = next(o for o in ALL if o["kind"] == "PodMonitor" and not o["metadata"]["name"].endswith("-webhook"))
    assert monitor["spec"]["selector"]["matchExpressions"] == [{"key": PROFILE_LABEL, "operator": "Exists"}]
    assert monitor["spec"]["podMetricsEndpoints"][0]["port"] == "egress-health"


def test_the_webhooks_pod_fits_the_restricted_level() -> None:
    spec: Any = one(ALL, "Deployment")["spec"]["template"]["spec"]
    context = spec["containers"][0]["securityContext"]

    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert (context["allowPrivilegeEscalation"], context["readOnlyRootFilesystem"]) == (False, True)
    assert context["capabilities"] == {"drop": ["ALL"]}
    assert {key for volume in spec["volumes"] for key in volume} <= {"name", "configMap", "secret"}
    assert (one(ALL, "Deployment")["spec"]["replicas"], one(ALL, "PodDisruptionBudget")["spec"]["maxUnavailable"]) == (
        2,
        1,
    )
