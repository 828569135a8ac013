"""The webhook's configuration file: what is understood, and how mistakes are told."""

import pytest

from sidecar.inject.load import ConfigError, parse_config
from tests.inject.pods import CONFIG


def test_an_empty_file_injects_nothing() -> None:
    config = parse_config("")

    assert not config.inject
    assert config.rule_for("default") is None


def test_a_file_of_cainjector_is_valid_in_yaml_and_in_json() -> None:
    text = """
inject: true
configMap: bundle
mountPath: /cacerts/
certFile: ca.crt
setEnvVar: true
includeNamespaces: [a]
excludeNamespaces: [b]
excludeContainers: [c]
"""
    config = parse_config(text)

    assert (config.inject, config.config_map, config.mount_path) == (True, "bundle", "/cacerts")
    assert parse_config('{"inject": true, "secret": "bundle"}').secret == "bundle"


def test_the_first_rule_that_matches_a_namespace_counts() -> None:
    config = parse_config(
        "policies: [{name: a, configMap: x}, {name: b, configMap: y}]\n"
        "sidecar: {image: i}\n"
        'namespaces: [{match: ["team-*"], policies: [a]}, {match: ["*"], policies: [b]}]'
    )

    assert [config.rule_for(name).policies for name in ("team-1", "x")] == [["a"], ["b"]]  # type: ignore[union-attr]
    assert config.rule_for("kube-system") is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("injekt: true", "c.yaml:1:1: injekt: is not a key; write 'inject'", id="a key misspelt"),
        pytest.param("\nsidecar: {imag: x}", "c.yaml:2:11: sidecar.imag: is not a key; write 'image'", id="further in"),
        pytest.param("guard: {requireRunAsUsr: true}", "write 'requireRunAsUser'", id="in the guard"),
        pytest.param("inject: maybe", "c.yaml:1:9: inject: input should be a valid boolean", id="no boolean"),
        pytest.param("configMap: a\nsecret: b", "exclude each other", id="both sources"),
        pytest.param("configMap: A_b", "no name of an object", id="no name"),
        pytest.param("mountPath: cacerts", "no absolute path", id="a relative path"),
        pytest.param("mountPath: /a/../b", "no absolute path", id="a path that climbs"),
        pytest.param("certFile: a/b", "no key", id="no key of a ConfigMap"),
        pytest.param("[]", "is not a mapping", id="no mapping"),
        pytest.param("a: [", "not valid YAML", id="no YAML"),
        pytest.param(
            CONFIG.replace("[agents, strict], enforce", "[other], enforce"), "no policy 'other'", id="no policy"
        ),
        pytest.param(CONFIG.replace("image: registry", "# image: registry"), "sidecar", id="no image"),
        pytest.param(
            CONFIG.replace("inject: onRequest", "inject: onRequest, enforce: true"),
            "enforce needs inject: always",
            id="enforced for those that ask",
        ),
        pytest.param("sidecar: {healthListen: '14120'}", "'14120' isn't ADDRESS:PORT", id="no listener"),
        pytest.param("sidecar: {healthListen: 'localhost:1'}", "isn't ADDRESS:PORT", id="a listener by name"),
        pytest.param("sidecar: {excludeCidrs: [10.0.0.1/8]}", "'10.0.0.1/8' is no network", id="no network"),
        pytest.param("sidecar: {excludePorts: [70000]}", "less than or equal to 65535", id="no port"),
        pytest.param("policies: [{name: x_y, configMap: z}]", "no name of a policy", id="no label"),
    ],
)
def test_mistakes_are_told_with_their_place(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config(text, "c.yaml")

    assert message in str(caught.value)
    assert all(line.startswith("c.yaml:") for line in str(caught.value).splitlines())
