"""What a pod's Java is told: appended to what its author has said, once, and nothing of it taken away."""

from typing import Any

import pytest

from sidecar.inject.load import parse_config
from sidecar.inject.pod import Changed
from sidecar.inject.review import change
from sidecar.trust.env import JAVA
from tests.inject.pods import CONFIG, container, pod

type Json = dict[str, Any]

CONFIGURATION = parse_config(CONFIG)
STORE = "-Djavax.net.ssl.trustStore=/etc/egress/trust/truststore.p12"
TRUST = f"{STORE} -Djavax.net.ssl.trustStoreType=PKCS12 -Djavax.net.ssl.trustStorePassword=changeit"
OWN_STORE = "-Xmx1g -Djavax.net.ssl.trustStore=/own.jks"
ELSEWHERE = {"name": JAVA, "valueFrom": {"configMapKeyRef": {"name": "java", "key": "options"}}}


def changed(*env: Json, namespace: str = "agents-1", containers: tuple[str, ...] = ("app",)) -> Changed:
    made = change(pod(*(container(name, env=list(env)) for name in containers)), namespace, CONFIGURATION)
    assert made is not None
    return made


def java(made: Changed, name: str = "app") -> Json:
    own = next(one for one in made.pod["spec"]["containers"] if one["name"] == name)
    (variable,) = [one for one in own["env"] if one["name"] == JAVA]
    return dict(variable)


@pytest.mark.parametrize(
    ("value", "becomes"),
    [
        pytest.param("-Xmx1g", f"-Xmx1g {TRUST}", id="appended"),
        pytest.param("", TRUST, id="empty"),
        pytest.param(OWN_STORE, OWN_STORE, id="a trust store of the author's counts"),
    ],
)
def test_what_the_author_has_set_stays(value: str, becomes: str) -> None:
    assert java(changed({"name": "A", "value": "b"}, {"name": JAVA, "value": value}))["value"] == becomes


def test_where_nothing_is_set_the_options_are_ours() -> None:
    assert java(changed()) == {"name": JAVA, "value": TRUST}
    assert changed().warnings == ()


def test_a_value_without_text_counts_as_none() -> None:
    assert java(changed({"name": JAVA}))["value"] == TRUST


@pytest.mark.parametrize("namespace", ["agents-1", "confined"])
def test_doing_so_again_changes_nothing(namespace: str) -> None:
    once = changed({"name": JAVA, "value": "-Xmx1g"}, namespace=namespace)

    again = change(once.pod, namespace, CONFIGURATION)

    assert again is not None
    assert again.pod == once.pod


@pytest.mark.parametrize("namespace", ["agents-1", "confined"])
def test_what_comes_from_elsewhere_is_left_and_told(namespace: str) -> None:
    made = changed(ELSEWHERE, namespace=namespace)

    assert java(made) == ELSEWHERE
    assert any(f"container 'app': {JAVA} comes from elsewhere" in text and STORE in text for text in made.warnings)


def test_in_the_restricted_profile_java_finds_the_proxy_too() -> None:
    value = java(changed(namespace="confined"))["value"]

    assert "-Dhttps.proxyHost=127.0.0.1 -Dhttps.proxyPort=14101" in value
    assert "-Dhttp.nonProxyHosts=localhost|127.0.0.1|$(KUBERNETES_SERVICE_HOST)|*.svc|*.cluster.local" in value
    assert value.endswith(TRUST)


def test_an_excluded_container_keeps_its_java() -> None:
    made = changed({"name": JAVA, "value": "-Xmx1g"}, containers=("app", "istio-proxy"))

    assert java(made, "istio-proxy")["value"] == "-Xmx1g"
