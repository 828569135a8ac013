"""What Helm's `lookup` finds in a cluster at an upgrade: the certificate that is there stays."""

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import yaml
from helm_python import Chart, Config

from tests.deploy.chart import CHART, NAMESPACE, RELEASE, Object, one, render
from tests.deploy.test_chart import webhooks

pytestmark = pytest.mark.live

SECRET = f"/api/v1/namespaces/{NAMESPACE}/secrets/{RELEASE}-webhook-tls"
RESOURCES = {
    "kind": "APIResourceList",
    "groupVersion": "v1",
    "resources": [{"name": "secrets", "namespaced": True, "kind": "Secret", "verbs": ["get"]}],
}


@contextmanager
def api_server(objects: dict[str, Object]) -> Iterator[str]:
    """As much of an API server as `lookup` needs; its address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found = objects.get(self.path.partition("?")[0])
            missing = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound", "code": 404}
            body = json.dumps(found or missing).encode()
            self.send_response(200 if found else 404)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def upgraded(objects: dict[str, Object]) -> list[Object]:
    """The chart, rendered with a look into a cluster that has these objects."""
    with api_server({"/api/v1": RESOURCES} | objects) as address:
        kubeconfig = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "c", "cluster": {"server": address}}],
            "users": [{"name": "u", "user": {}}],
            "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
            "current-context": "x",
        }
        with (
            Config(kubeconfig_content=yaml.safe_dump(kubeconfig), namespace=NAMESPACE, storage_driver="memory") as helm,
            Chart.load(CHART) as chart,
        ):
            texts = helm.render(chart, {}, name=RELEASE, namespace=NAMESPACE, is_upgrade=True)
    return [o for path, text in texts.items() if not path.endswith(".txt") for o in yaml.safe_load_all(text) if o]


def test_a_certificate_that_is_there_stays() -> None:
    before = one(render(), "Secret")

    after = upgraded({SECRET: before})

    assert one(after, "Secret")["data"] == before["data"]
    assert {hook["clientConfig"]["caBundle"] for hook in webhooks(after)} == {before["data"]["ca.crt"]}


def test_one_that_was_deleted_is_made_anew() -> None:
    before = one(render(), "Secret")

    data = one(upgraded({}), "Secret")["data"]

    assert data["tls.crt"] != before["data"]["tls.crt"]
    assert base64.b64decode(data["tls.crt"]).startswith(b"-----BEGIN CERTIFICATE-----")
