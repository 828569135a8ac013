"""deploy/pki: valid by the schemas, and of one mind. What its commands do is shown in tests/live/pki."""

import re
from pathlib import Path

import pytest
import typer.main
import yaml
from typer.core import TyperGroup

from sidecar.cli import app
from sidecar.policy import parse_policy
from sidecar.policy.lint import lint_policy
from tests.deploy.chart import CRDS, ROOT, Object, check, crds, one, versions

PKI = ROOT / "deploy" / "pki"
MANIFESTS = sorted((PKI / "kubernetes").glob("*.yaml"))
NATIVE = [version for version in versions() if int(version.partition(".")[2]) >= 29]  # native sidecars


def documents(name: str) -> list[Object]:
    return [document for document in yaml.safe_load_all((PKI / "kubernetes" / name).read_text()) if document]


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: str(path.name))
def test_manifests_are_valid(path: Path) -> None:
    custom = crds()
    # Its definition isn't at hand; its spec is an Issuer's.
    custom |= {(version, "ClusterIssuer"): schema for (version, kind), schema in custom.items() if kind == "Issuer"}
    for document in documents(path.name):
        known = [check(document, version, custom) for version in NATIVE]
        if not all(known):
            assert "." in document["apiVersion"] and not CRDS.exists(), f"{document['kind']} has no schema"
            pytest.skip(f"no definitions in {CRDS}")


def test_both_bundles_say_the_same() -> None:
    (old,), (new,) = documents("bundle.yaml"), documents("clusterbundle.yaml")
    secret = old["spec"]["sources"][1]["secret"]

    assert old["spec"]["sources"][0] == {"useDefaultCAs": True}
    assert new["spec"]["defaultCAs"] == {"provider": "System"}
    assert new["spec"]["sourceRefs"] == [secret | {"kind": "Secret"}]
    assert new["spec"]["target"]["configMap"]["data"] == [old["spec"]["target"]["configMap"]]
    assert new["spec"]["target"]["namespaceSelector"] == old["spec"]["target"]["namespaceSelector"]
    assert new["metadata"]["name"] == old["metadata"]["name"]


def test_development_differs_only_in_who_signs() -> None:
    real, dev = (
        one(documents(name), "Certificate", "egress-intermediate") for name in ("intermediate.yaml", "dev.yaml")
    )
    root = one(documents("dev.yaml"), "Certificate", "egress-roots")
    constraints = (PKI / "vault" / "root.json").read_text()

    assert real["spec"] | {"issuerRef": None} == dev["spec"] | {"issuerRef": None}
    permitted = root["spec"]["nameConstraints"]["permitted"]["dnsDomains"]
    assert yaml.safe_load(constraints)["permitted_dns_domains"] == permitted
    assert root["spec"]["secretName"] == one(documents("roots.yaml"), "ExternalSecret")["spec"]["target"]["name"]


def test_the_workloads_sidecar_has_what_it_needs() -> None:
    pod = one(documents("workload.yaml"), "Deployment")["spec"]["template"]["spec"]
    (sidecar,), (agent,) = pod["initContainers"], pod["containers"]
    command, *arguments = sidecar["args"]
    group = typer.main.get_command(app)
    assert isinstance(group, TyperGroup)
    known = {option for parameter in group.commands[command].params for option in parameter.opts}
    values = dict(argument.split("=", 1) for argument in arguments)
    mounts = {mount["mountPath"] for mount in sidecar["volumeMounts"]}

    assert set(values) <= known
    paths = {str(Path(value).parent) for value in values.values() if Path(value).suffix} | {values["--ca-dir"]}
    assert paths == mounts
    assert "egress-ca" not in {mount["name"] for mount in agent["volumeMounts"]}, "the key is the sidecar's alone"
    assert {v["value"] for v in agent["env"] if v["name"].isupper() and "CA" in v["name"]} == {values["--trust-bundle"]}


def test_the_workloads_policy_is_valid_and_within_the_constraints() -> None:
    text = one(documents("workload.yaml"), "ConfigMap")["data"]["policy.yaml"]
    permitted = yaml.safe_load((PKI / "vault" / "root.json").read_text())["permitted_dns_domains"]

    assert lint_policy(parse_policy(text)) == ()
    for host in yaml.safe_load(text)["rules"][0]["allow"]:
        assert any(host.endswith(f".{domain}") for domain in permitted), host


@pytest.mark.parametrize("page", ["README.md", "RUNBOOK.md"])
def test_links_resolve(page: str) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", (PKI / page).read_text()):
        assert (PKI / target.partition("#")[0]).exists(), target


def test_every_file_is_explained() -> None:
    page = (PKI / "README.md").read_text()
    files = [path for path in PKI.rglob("*") if path.is_file() and path.name != "README.md"]

    assert [str(path.relative_to(PKI)) for path in files if f"({path.relative_to(PKI)})" not in page] == []
