"""The webhook as the API server meets it: over HTTPS, with many kinds of pods, its certificate exchanged meanwhile."""

import asyncio
import base64
import http.client
import json
import signal
import socket
import ssl
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import jsonpatch
import kubernetes_validate  # type: ignore[import-untyped]
import pytest

from bench.reviews import NAME, Webhook, load, served, webhook, write_certificate
from bench.reviews import review as load_review
from tests.inject.pods import CASES, CONFIG, UID, Case, as_stored, container, lestak, ours, pod, review
from tests.live.sidecars import until

pytestmark = pytest.mark.live

type Json = dict[str, Any]

NATIVE_VERSIONS = [f"1.{minor}" for minor in range(29, 38)]
CLASSIC_VERSIONS = [f"1.{minor}" for minor in range(25, 38)]


class Api:
    """The API server's side: sends reviews, applies patches."""

    def __init__(self, hook: Webhook) -> None:
        self.hook = hook

    def send(self, path: str, body: bytes, method: str = "POST") -> tuple[int, Json]:
        with socket.create_connection(("127.0.0.1", self.hook.port), 10) as plain:
            connection = http.client.HTTPConnection(NAME)
            connection.sock = self.hook.context().wrap_socket(plain, server_hostname=NAME)
            connection.request(method, path, body, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            text = answer.read()
            connection.close()
        return answer.status, json.loads(text) if text.startswith(b"{") else {}

    def ask(self, path: str, body: Json) -> Json:
        status, answer = self.send(path, json.dumps(body).encode())
        assert status == 200, answer
        assert (answer["apiVersion"], answer["kind"]) == ("admission.k8s.io/v1", "AdmissionReview")
        response: Json = answer["response"]
        assert response["uid"] == body["request"]["uid"]
        return response

    def mutate(self, namespace: str, new: Json) -> Json:
        return self.ask("/mutate?timeout=10s", review(namespace, new))

    def admit(self, namespace: str, new: Json) -> Json:
        response = self.mutate(namespace, new)
        assert response["allowed"], response
        return patched(new, response)

    def validate(self, namespace: str, new: Json | None, operation: str = "CREATE", **more: Any) -> str:
        """Why it is refused; empty if it isn't."""
        response = self.ask("/validate", review(namespace, new, operation, **more))
        return "" if response["allowed"] else str(response["status"]["message"])


def patched(new: Json, response: Json) -> Json:
    if "patch" not in response:
        return new
    assert response["patchType"] == "JSONPatch"
    made: Json = jsonpatch.apply_patch(deepcopy(new), json.loads(base64.b64decode(response["patch"])))
    return made


def containers(made: Json, key: str) -> list[str]:
    return [one["name"] for one in made["spec"].get(key) or []]


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    with webhook(tmp_path_factory.mktemp("webhook"), CONFIG) as hook:
        yield Api(hook)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_each_pod_becomes_what_it_should(api: Api, case: Case) -> None:
    response = api.mutate(case.namespace, case.pod)

    assert response["allowed"] is (case.becomes != "refused"), response
    if not response["allowed"]:
        assert response["status"]["code"] == 403
        return
    made = patched(case.pod, response)
    ours_there = "egress-sidecar" in [*containers(made, "initContainers"), *containers(made, "containers")]
    assert ours_there is (case.becomes == "sidecar")
    assert ("patch" in response) is (case.becomes != "none")
    kubernetes_validate.validate(made, "1.37", strict=True)

    assert "patch" not in api.mutate(case.namespace, made), "what is injected already stays as it is"
    stored = as_stored(made)
    assert "patch" not in api.mutate(case.namespace, stored), (
        "nor is it injected again once completed by the API server"
    )
    refusal = api.validate(case.namespace, stored)
    assert case.guard in refusal
    assert bool(refusal) is bool(case.guard), refusal


@pytest.mark.parametrize(
    ("namespace", "version"),
    [("agents-1", version) for version in NATIVE_VERSIONS] + [("old", version) for version in CLASSIC_VERSIONS],
)
def test_the_result_is_valid_in_each_version_of_kubernetes(api: Api, namespace: str, version: str) -> None:
    made = api.admit(namespace, pod(initContainers=[container("migrate")]))

    kubernetes_validate.validate(made, version, strict=True)


@pytest.mark.parametrize("namespace", ["agents-1", "old", "confined", "vaulted"])
def test_after_another_webhook_ours_are_first_again(api: Api, namespace: str) -> None:
    once = as_stored(api.admit(namespace, pod(initContainers=[container("migrate")])))
    other = deepcopy(once)
    other["spec"]["initContainers"].insert(0, container("intruder"))
    other["spec"]["containers"].insert(0, container("mesh"))

    assert "has to come here" in api.validate(namespace, other)
    again = api.admit(namespace, other)

    def first(key: str) -> list[str]:
        return [name for name in containers(once, key) if name.startswith("egress-")]

    for key in ("initContainers", "containers"):
        assert containers(again, key)[: len(first(key))] == first(key)
    assert {"intruder", "migrate"} <= set(containers(again, "initContainers"))
    assert api.validate(namespace, as_stored(again)) == ""
    assert "patch" not in api.mutate(namespace, as_stored(again))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        pytest.param(lambda spec: spec["initContainers"].pop(1), "egress-netfilter", id="a missing netfilter"),
        pytest.param(
            lambda spec: spec["initContainers"][2].update(image="evil:1"), "egress-sidecar", id="another image"
        ),
        pytest.param(
            lambda spec: spec["initContainers"][2].update(command=["sleep", "1d"]), "egress-sidecar", id="a command"
        ),
        pytest.param(
            lambda spec: spec["initContainers"][2]["env"].append(
                {"name": "EGRESS_UPSTREAM_PROXY", "value": "http://x"}
            ),
            "egress-sidecar",
            id="a variable",
        ),
        pytest.param(
            lambda spec: spec["initContainers"][2].update(envFrom=[{"configMapRef": {"name": "x"}}]),
            "egress-sidecar",
            id="variables from elsewhere",
        ),
        pytest.param(
            lambda spec: spec["initContainers"][2].update(lifecycle={"postStart": {"exec": {"command": ["sh"]}}}),
            "egress-sidecar",
            id="a hook",
        ),
        pytest.param(
            lambda spec: spec["initContainers"][1]["args"].extend(["--exclude-cidr", "0.0.0.0/0"]),
            "egress-netfilter",
            id="an exemption",
        ),
        pytest.param(
            lambda spec: spec["initContainers"][2]["securityContext"].update(runAsUser=0), "egress-sidecar", id="root"
        ),
        pytest.param(
            lambda spec: next(v for v in spec["volumes"] if v["name"] == "egress-policy")["configMap"].update(name="x"),
            "egress-policy",
            id="another policy",
        ),
        pytest.param(
            lambda spec: next(v for v in spec["volumes"] if v["name"] == "egress-ca")["emptyDir"].update(medium=""),
            "egress-ca",
            id="a CA on disk",
        ),
        pytest.param(
            lambda spec: spec["containers"][0]["volumeMounts"].append({"name": "egress-ca", "mountPath": "/x"}),
            "'egress-ca' is the sidecar's alone",
            id="a mount of the key",
        ),
        pytest.param(
            lambda spec: spec["containers"][0]["volumeMounts"].append({"name": "egress-control", "mountPath": "/x"}),
            "'egress-control' is the sidecar's alone",
            id="a mount of the control socket",
        ),
        pytest.param(
            lambda spec: spec["containers"][0]["volumeMounts"].append({"name": "egress-trust", "mountPath": "/x"}),
            "read only",
            id="a writable trust folder",
        ),
        pytest.param(
            lambda spec: spec["containers"][0].pop("securityContext"),
            "allowPrivilegeEscalation",
            id="privileges that are back",
        ),
        pytest.param(
            lambda spec: spec["containers"][0]["securityContext"]["capabilities"]["drop"].remove("SETUID"),
            "lacks SETUID",
            id="a capability that isn't dropped",
        ),
        pytest.param(
            lambda spec: spec.update(ephemeralContainers=[container("debug")]), "ephemeralContainers", id="a debugger"
        ),
    ],
)
def test_guard_refuses_what_was_changed_and_mutate_puts_right_what_is_ours(api: Api, change: Any, reason: str) -> None:
    made = as_stored(api.admit("agents-1", pod()))
    tampered = deepcopy(made)
    change(tampered["spec"])

    assert reason in api.validate("agents-1", tampered)

    tampered["spec"].pop("ephemeralContainers", None)
    assert api.validate("agents-1", api.admit("agents-1", tampered)) == ""


@pytest.mark.parametrize("namespace", ["agents-1", "old", "confined"])
def test_what_the_api_server_s_own_plugins_complete_is_no_change(api: Api, namespace: str) -> None:
    made = as_stored(api.admit(namespace, pod()))
    for one in [*made["spec"]["initContainers"], *made["spec"]["containers"]]:
        one["imagePullPolicy"] = "Always"  # AlwaysPullImages
        one["resizePolicy"] = [{"resourceName": "cpu", "restartPolicy": "NotRequired"}]  # InPlacePodVerticalScaling
        one["resources"] = {"limits": {"memory": "1Gi"}}  # LimitRanger

    assert api.validate(namespace, made) == ""
    assert "patch" not in api.mutate(namespace, made)


def test_guard_refuses_a_pod_that_was_never_injected(api: Api) -> None:
    assert "egress-sidecar" in api.validate("agents-1", pod())
    assert api.validate("elsewhere", pod()) == ""
    assert api.validate("asking", pod()) == ""


def test_guard_keeps_debuggers_out_of_running_pods(api: Api) -> None:
    running = as_stored(api.admit("agents-1", pod()))
    debugged = deepcopy(running)
    debugged["spec"]["ephemeralContainers"] = [container("debug", targetContainerName="egress-sidecar")]
    more = {"oldObject": running, "subResource": "ephemeralcontainers"}

    assert "debug" in api.validate("agents-1", debugged, "UPDATE", **more)
    assert api.validate("agents-1", running, "UPDATE", **more) == ""
    assert api.validate("elsewhere", debugged, "UPDATE", **more) == ""


@pytest.mark.parametrize("what", ["exec", "attach"])
def test_nobody_enters_the_sidecar(api: Api, what: str) -> None:
    def enter(name: str | None, namespace: str = "agents-1") -> str:
        options = {"apiVersion": "v1", "kind": "PodExecOptions", "container": name, "command": ["sh"]}
        return api.validate(namespace, options, "CONNECT", subResource=what, name="app")

    for name in ("egress-sidecar", "egress-bootstrap", "egress-netfilter", "egress-fence-check"):
        assert what in enter(name)
    assert enter("app") == ""
    assert enter(None) == ""
    assert enter("egress-sidecar", "elsewhere") == ""


def test_the_sidecar_s_image_stays_in_a_running_pod(api: Api) -> None:
    running = as_stored(api.admit("agents-1", pod()))
    changed = deepcopy(running)
    changed["spec"]["initContainers"][2]["image"] = "evil:1"
    workload = deepcopy(running)
    workload["spec"]["containers"][0]["image"] = "app:2"

    assert "image" in api.validate("agents-1", changed, "UPDATE", oldObject=running)
    assert api.validate("agents-1", workload, "UPDATE", oldObject=running) == ""


def test_the_classic_form_has_the_fence_check_beside_the_workload(api: Api) -> None:
    made = api.admit("old", pod(initContainers=[container("migrate")]))

    assert containers(made, "initContainers") == ["egress-bootstrap", "egress-netfilter", "migrate"]
    assert containers(made, "containers") == ["egress-sidecar", "egress-fence-check", "app"]


def test_namespaces_that_are_not_opted_in_get_trust_at_most(api: Api) -> None:
    trusting = pod(annotations=lestak(inject="true"))

    assert api.ask("/mutate/trust", review("agents-1", pod())) == {"uid": UID, "allowed": True}
    made = patched(trusting, api.ask("/mutate/trust", review("agents-1", trusting)))
    assert [volume["name"] for volume in made["spec"]["volumes"]] == ["egress-bundle"]
    assert not api.ask("/mutate/trust", review("agents-1", pod(annotations=ours(inject="sidecar"))))["allowed"]


def test_other_objects_and_operations_pass_unchanged(api: Api) -> None:
    deployment = {"group": "apps", "version": "v1", "resource": "deployments"}
    for more in ({"resource": deployment}, {"subResource": "status"}, {"operation": "UPDATE"}):
        body = review("agents-1", pod())
        body["request"] |= more
        response = api.ask("/mutate", body)
        assert response == {"uid": body["request"]["uid"], "allowed": True}


@pytest.mark.parametrize(
    ("body", "words"),
    [
        pytest.param(b"", "not JSON", id="nothing"),
        pytest.param(b"{}", "no request", id="no review"),
        pytest.param(b"[]", "no request", id="a list"),
        pytest.param(
            json.dumps(review("agents-1", pod()) | {"apiVersion": "admission.k8s.io/v1beta1"}).encode(),
            "v1",
            id="another version",
        ),
        pytest.param(json.dumps(review("agents-1", None)).encode(), "no Pod", id="no pod"),
    ],
)
def test_what_is_no_review_is_neither_a_yes_nor_a_no(api: Api, body: bytes, words: str) -> None:
    status, answer = api.send("/mutate", body)

    assert status == 400
    assert words in answer["error"]


def test_a_review_that_breaks_us_is_left_to_the_failure_policy(api: Api) -> None:
    broken = pod()
    broken["spec"]["containers"] = [7]

    status, answer = api.send("/mutate", json.dumps(review("agents-1", broken)).encode())

    assert (status, answer) == (500, {"error": "internal error"})


def test_only_these_paths_and_methods(api: Api) -> None:
    assert api.send("/mutate", b"", "GET")[0] == 405
    assert api.send("/", b"")[0] == 404


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
def test_tls_1_1_is_refused_and_1_2_is_served(api: Api) -> None:
    context = api.hook.context()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with socket.create_connection(("127.0.0.1", api.hook.port), 10) as plain:
        assert context.wrap_socket(plain, server_hostname=NAME).version() == "TLSv1.2"

    old = api.hook.context()
    old.set_ciphers("ALL:@SECLEVEL=0")
    old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
    # By the other side, which hangs up: this client's own refusal would be another error.
    with socket.create_connection(("127.0.0.1", api.hook.port), 10) as plain, pytest.raises(ssl.SSLEOFError):
        old.wrap_socket(plain, server_hostname=NAME)


def test_a_new_certificate_is_served_without_an_error_under_load(tmp_path: Path) -> None:
    with webhook(tmp_path) as hook:
        tally = asyncio.run(load(hook, load_review(), rate=50, seconds=5, rotate_seconds=1.5))

    assert tally.errors == []
    assert len(tally.seconds) == 250
    assert len(tally.serials) >= 2


def test_a_broken_certificate_leaves_the_last_good_one(tmp_path: Path) -> None:
    with webhook(tmp_path) as hook:
        before = asyncio.run(served(hook))
        link = hook.certificates / "..data"
        good = link.readlink()
        (hook.certificates / "half").mkdir()
        for name, text in (("tls.crt", (link / "tls.crt").read_text()), ("tls.key", "nothing")):
            (hook.certificates / "half" / name).write_text(text)
        link.unlink()
        link.symlink_to("half")

        until(lambda: "going on with the certificate" in (tmp_path / "log.txt").read_text(), "complaint")
        assert asyncio.run(served(hook)) == before

        link.unlink()
        link.symlink_to(good)
        new = write_certificate(hook.certificates, hook.ca)
        until(lambda: asyncio.run(served(hook)) == new, "new certificate")
        assert asyncio.run(served(hook, name=None)) == new, "also to a client that names nobody"
        assert "Traceback" not in (tmp_path / "log.txt").read_text()


def test_a_new_configuration_is_taken_in_and_a_broken_one_is_not(tmp_path: Path) -> None:
    with webhook(tmp_path, CONFIG) as hook:
        api, file = Api(hook), tmp_path / "config.yaml"

        file.write_text("namespaces: 7")
        until(lambda: "last good configuration" in (tmp_path / "log.txt").read_text(), "complaint")
        assert "patch" in api.mutate("agents-1", pod())

        file.write_text(CONFIG.replace('"agents-*"', '"others"'))
        until(lambda: "patch" not in api.mutate("agents-1", pod()), "new configuration")
        assert "patch" in api.mutate("others", pod(annotations=ours(policy="strict")))


def health(hook: Webhook, path: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", hook.health_port, timeout=10)
    connection.request("GET", path)
    answer = connection.getresponse()
    return answer.status, answer.read().decode()


def test_it_is_not_ready_first_and_then_ends(tmp_path: Path) -> None:
    with webhook(tmp_path, CONFIG, "--drain-seconds", "3") as hook:
        assert health(hook, "/livez")[0] == 200
        assert health(hook, "/readyz") == (200, '{"ready": true, "reasons": []}')

        hook.process.send_signal(signal.SIGTERM)
        until(lambda: health(hook, "/readyz")[0] == 503, "not ready")

        assert "stopping" in health(hook, "/readyz")[1]
        assert "patch" in Api(hook).mutate("agents-1", pod()), "it still answers"
        assert hook.process.wait(20) == 0


def test_metrics_count_reviews_by_verdict(tmp_path: Path) -> None:
    with webhook(tmp_path, CONFIG) as hook:
        api = Api(hook)
        api.mutate("agents-1", pod())
        api.mutate("elsewhere", pod())
        api.validate("agents-1", pod())
        text = health(hook, "/metrics")[1]

    assert 'egress_inject_reviews_total{verdict="patched",webhook="mutate"} 1.0' in text
    assert 'egress_inject_reviews_total{verdict="allowed",webhook="mutate"} 1.0' in text
    assert 'egress_inject_reviews_total{verdict="refused",webhook="validate"} 1.0' in text
    assert "egress_inject_certificate_not_after_seconds" in text
