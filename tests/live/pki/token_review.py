"""The one call of an API server that OpenBao's Kubernetes auth makes: TokenReview, over TLS."""

import json
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from tests.live.pki.cluster import Cluster


@contextmanager
def serving(cluster: Cluster, context: ssl.SSLContext) -> Iterator[str]:
    """Answer for *cluster* on a free port of 127.0.0.1; gives the URL."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            review = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            reviewer = self.headers.get("Authorization", "").removeprefix("Bearer ")
            allowed = self.path == "/apis/authentication.k8s.io/v1/tokenreviews" and cluster.may_review(reviewer)
            if allowed:
                spec = review["spec"]
                review["status"] = cluster.review(spec["token"], spec.get("audiences") or [])
            body = json.dumps(review if allowed else {"kind": "Status", "code": 403, "status": "Failure"}).encode()
            self.send_response(201 if allowed else 403)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"https://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)
