"""The webhook as the chart starts it: its arguments, its configuration, its certificate, over real HTTPS."""

import base64
import json
import os
import re
import socket
import ssl
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from http.client import HTTPSConnection
from pathlib import Path

import pytest
import yaml

from tests.deploy.chart import EXAMPLES, Object, example_values, one, render
from tests.deploy.test_chart import webhooks
from tests.live.sidecars import SECONDS, until

pytestmark = pytest.mark.live

OBJECTS = render(example_values() | {"trust": {"enabled": True}})


class Serving:
    """Where the webhook answers, and what the API server would be told of it."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self._log = log

        def addresses() -> list[str]:
            assert process.poll() is None, log.read_text()
            found = re.findall(r" on (\S+):(\d+)$", log.read_text(), re.MULTILINE)
            return [port for _, port in found] if len(found) == 2 else []

        self.port, self.health = map(int, until(addresses, "addresses in the log"))


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    folder = tmp_path_factory.mktemp("webhook")
    for name, value in one(OBJECTS, "Secret")["data"].items():
        (folder / name).write_bytes(base64.b64decode(value))
    (folder / "config.yaml").write_text(one(OBJECTS, "ConfigMap", "-webhook")["data"]["config.yaml"])
    container = one(OBJECTS, "Deployment")["spec"]["template"]["spec"]["containers"][0]
    arguments = [
        re.sub(r"=0\.0\.0\.0:\d+$", "=127.0.0.1:0", argument)
        .replace("/etc/egress/tls", str(folder))
        .replace("/etc/egress/inject", str(folder))
        for argument in container["args"]
    ]
    log = folder / "log.txt"
    variables = {k: v for k, v in os.environ.items() if not k.startswith("EGRESS_")}
    with log.open("wb") as stderr:
        process = subprocess.Popen([sys.executable, "-m", "sidecar", *arguments], stderr=stderr, env=variables)
    try:
        yield Serving(process, log)
    finally:
        process.kill()
        process.wait()


def review(serving: Serving, name: str, pod: Object) -> Object:
    """Ask as the API server does: by the service's name, trusting the CA of the webhook's configuration alone."""
    client = next(hook for hook in webhooks(OBJECTS) if hook["name"].startswith(name))["clientConfig"]
    service = client["service"]
    context = ssl.create_default_context(cadata=base64.b64decode(client["caBundle"]).decode())
    connection = HTTPSConnection(f"{service['name']}.{service['namespace']}.svc", context=context, timeout=SECONDS)
    connection._create_connection = lambda *_, **__: socket_to(serving.port)  # type: ignore[attr-defined]
    request = {
        "uid": "u",
        "operation": "CREATE",
        "resource": {"group": "", "version": "v1", "resource": "pods"},
        "namespace": pod["metadata"]["namespace"],
        "object": pod,
    }
    body = json.dumps({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request})
    connection.request("POST", service["path"], body, {"Content-Type": "application/json"})
    response: Object = json.load(connection.getresponse())["response"]
    connection.close()
    return response


def socket_to(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), SECONDS)


def test_a_pod_is_changed_and_one_that_was_not_is_refused(serving: Serving) -> None:
    pod = yaml.safe_load((EXAMPLES / "pod-transparent.yaml").read_text())

    changed = review(serving, "inject", pod)
    assert changed["allowed"]
    assert b"egress-netfilter" in base64.b64decode(changed["patch"])

    refused = review(serving, "guard", pod)
    assert not refused["allowed"]


def test_trust_alone_is_mounted(serving: Serving) -> None:
    pod = next(o for o in yaml.safe_load_all((EXAMPLES / "trust-only.yaml").read_text()) if o["kind"] == "Pod")

    patch = base64.b64decode(review(serving, "trust", pod)["patch"])
    assert b"company-roots" in patch
    assert b"egress-sidecar" not in patch


@pytest.mark.parametrize("probe", ["startupProbe", "livenessProbe", "readinessProbe"])
def test_probes_are_answered(serving: Serving, probe: str) -> None:
    path = one(OBJECTS, "Deployment")["spec"]["template"]["spec"]["containers"][0][probe]["httpGet"]["path"]
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(f"http://127.0.0.1:{serving.health}{path}", timeout=SECONDS) as answer:
        assert answer.status == 200


def test_metrics_that_alerts_ask_for_are_served(serving: Serving) -> None:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(f"http://127.0.0.1:{serving.health}/metrics", timeout=SECONDS) as answer:
        assert b"egress_inject_certificate_not_after_seconds" in answer.read()
