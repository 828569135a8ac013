"""The guard's settings: what an administrator can make stricter or looser."""

from typing import Any

import pytest

from sidecar.inject import annotations
from sidecar.inject.choice import sidecar_plan
from sidecar.inject.guard import objections, objections_to_debugging
from sidecar.inject.load import parse_config
from sidecar.inject.review import change
from tests.inject.pods import CONFIG, container, pod

type Json = dict[str, Any]


def ask(new: Json, setting: str = "{}", debugger: Json | None = None) -> str:
    config = parse_config(f"{CONFIG}guard: {setting}\n")
    rule = config.rule_for("agents-1")
    assert rule is not None
    changed = change(new, "agents-1", config)
    assert changed is not None
    plan = sidecar_plan(changed.pod, "agents-1", rule, config, annotations.read(changed.pod, config))
    if debugger is None:
        return "; ".join(objections(changed.pod, plan, config))
    after = changed.pod | {"spec": changed.pod["spec"] | {"ephemeralContainers": [debugger]}}
    return "; ".join(objections_to_debugging(after, changed.pod, plan, config))


SAFE = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}


@pytest.mark.parametrize(
    ("spec", "setting", "reason"),
    [
        pytest.param({}, "{requireRunAsUser: true}", "runAsUser is missing", id="a user has to be named"),
        pytest.param(
            {"securityContext": {"runAsUser": 1000}}, "{requireRunAsUser: true}", "", id="once for the pod is enough"
        ),
        pytest.param(
            {"volumes": [{"name": "h", "hostPath": {"path": "/x"}}]}, "{allowHostPath: true}", "", id="the node's files"
        ),
        pytest.param(
            {"hostAliases": [{"ip": "192.0.2.1", "hostnames": ["a"]}]},
            "{allowHostAliases: true}",
            "",
            id="host aliases",
        ),
    ],
)
def test_settings(spec: Json, setting: str, reason: str) -> None:
    found = ask(pod(**spec), setting)

    assert reason in found
    assert bool(found) is bool(reason)


def test_the_sidecar_s_user_is_the_configured_one() -> None:
    config = CONFIG + "  uid: 771234\n"
    parsed = parse_config(config)
    rule = parsed.rule_for("agents-1")
    assert rule is not None
    changed = change(pod(securityContext={"runAsUser": 771234}), "agents-1", parsed)
    assert changed is not None
    plan = sidecar_plan(changed.pod, "agents-1", rule, parsed, annotations.read(changed.pod, parsed))

    assert "runAsUser 771234" in "; ".join(objections(changed.pod, plan, parsed))
    bootstrap, netfilter = changed.pod["spec"]["initContainers"][:2]
    assert bootstrap["securityContext"]["runAsUser"] == 771234
    assert netfilter["args"][:3] == ["netfilter", "--sidecar-uid", "771234"]


@pytest.mark.parametrize(
    ("debugger", "reason"),
    [
        pytest.param(container("d", securityContext=SAFE), "", id="as harmless as the workload"),
        pytest.param(container("d"), "allowPrivilegeEscalation", id="not restricted"),
        pytest.param(
            container("d", securityContext=SAFE | {"runAsUser": 14137}), "runAsUser", id="as the sidecar's user"
        ),
        pytest.param(
            container("d", securityContext=SAFE, targetContainerName="egress-sidecar"), "target", id="at the sidecar"
        ),
        pytest.param(
            container("d", securityContext=SAFE, volumeMounts=[{"name": "egress-ca", "mountPath": "/x"}]),
            "'egress-ca' is the sidecar's alone",
            id="with the key",
        ),
    ],
)
def test_debuggers_can_be_checked_instead_of_refused(debugger: Json, reason: str) -> None:
    found = ask(pod(), "{ephemeralContainers: check}", debugger)

    assert reason in found
    assert bool(found) is bool(reason)
    assert "admits none" in ask(pod(), "{}", debugger)
