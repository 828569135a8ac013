"""The host that the sidecar answers for itself: whatever the policy says of it, by whatever way, and never dialled."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from sidecar.builtin import BODY, TRUST_HOST
from tests.live.intercepted import ALLOW_ADDRESSES, Zone, intercepted
from tests.live.pod import INTERNET_V4, need_root_and
from tests.live.sidecars import Sidecar, running, until
from tests.live.upstreams import Root, Seen, serving
from tests.live.wire import Answer, Http2Client, ask, dial, get, secure

pytestmark = pytest.mark.live

_TAIL: Final = 'network: {allow_addresses: ["127.0.0.1"]}\n'
POLICIES: Final = {
    "nothing is allowed": "version: 1\n",
    "a rule denies it": f"version: 1\nrules: [{{deny: [{TRUST_HOST}]}}]\n",
    "a rule allows it": f"version: 1\nrules: [{{allow: [{TRUST_HOST}], ports: [1-65535]}}]\n{_TAIL}",
    "a rule narrows it": f"version: 1\nrules: [{{allow: [{TRUST_HOST}], methods: [PUT]}}]\n{_TAIL}",
    "it would be passed through": f"version: 1\nrules: [{{passthrough: ['**'], ports: [1-65535]}}]\n{_TAIL}",
    "raw TCP would be allowed": (
        f"version: 1\nrules: [{{allow: ['**'], protocol: tcp, ports: [1-65535]}}]\n{_TAIL}"
    ),
    "everything is allowed": f"version: 1\ndefault: allow\n{_TAIL}",
}  # fmt: skip


class Scene:
    """A sidecar that is told that the name is an upstream, and that upstream, which would answer."""

    def __init__(self, sidecar: Sidecar, root: Root, port: int, seen: Seen) -> None:
        self.sidecar, self.root, self.port, self.seen = sidecar, root, port, seen

    @property
    def authority(self) -> str:
        return f"{TRUST_HOST}:{self.port}"

    def get(self, request: bytes, *, method: str = "GET") -> Answer:
        with secure(self.sidecar, self.authority) as sock:
            return ask(sock, request, method=method)


@pytest.fixture(scope="module", params=POLICIES)
def scene(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    folder: Path = tmp_path_factory.mktemp("builtin")
    root = Root(folder)
    with (
        serving(root.context(TRUST_HOST)) as (port, seen),
        running(
            folder / "sidecar",
            POLICIES[request.param],
            *("--upstream-ca", str(root.pem), "--resolve", f"{TRUST_HOST}:127.0.0.1", "--event-level", "debug"),
        ) as sidecar,
    ):
        yield Scene(sidecar, root, port, seen)
        assert (root.connections, seen.requests) == (0, []), "it was dialled"


def test_http1_is_answered(scene: Scene) -> None:
    got = scene.get(get(scene.authority, "/h1"))

    assert (got.status, got.body, got.headers["content-type"]) == (200, BODY, "application/json")
    assert json.loads(got.body)["trusted"] is True
    allowed = scene.sidecar.event("request_allowed", path="/h1")
    closed = scene.sidecar.event("request_closed", path="/h1")
    assert (allowed["reason"], allowed["rule"]) == ("builtin", None)
    assert (closed["status"], closed["upstream_address"], closed["bytes_in"]) == (200, None, len(BODY))


def test_http2_is_answered_stream_by_stream(scene: Scene) -> None:
    with secure(scene.sidecar, scene.authority, alpn=["h2"]) as sock:
        client = Http2Client(sock)
        got = [client.ask(scene.authority, f"/h2/{n}") for n in range(3)]

    assert [answer and (answer.status, answer.body) for answer in got] == [(200, BODY)] * 3
    until(lambda: scene.sidecar.events("request_closed", path="/h2/2"), "the last one's end")


def test_head_is_answered_without_a_body(scene: Scene) -> None:
    got = scene.get(get(scene.authority, "/head", method="HEAD"), method="HEAD")

    assert (got.status, got.headers["content-length"], got.body) == (200, str(len(BODY)), b"")


def test_other_methods_are_told_which_there_are(scene: Scene) -> None:
    got = scene.get(get(scene.authority, "/post", "Content-Length: 6", method="POST") + b"secret")

    assert (got.status, got.reason, got.headers["allow"]) == (405, "builtin", "GET, HEAD")
    assert scene.sidecar.event("request_denied", path="/post")["reason"] == "builtin"


def test_the_body_of_a_request_is_read_away(scene: Scene) -> None:
    with secure(scene.sidecar, scene.authority) as sock:
        first = ask(sock, get(scene.authority, "/with-body", "Content-Length: 6") + b"secret")
        second = ask(sock, get(scene.authority, "/after"))

    assert (first.status, second.status) == (200, 200)


def test_without_tls_it_is_refused(scene: Scene) -> None:
    with dial(scene.sidecar) as sock:
        got = ask(sock, get(scene.authority, f"http://{scene.authority}/plain"))

    assert (got.status, got.reason) == (403, "builtin")


def test_an_https_url_that_came_in_the_clear_is_no_proof_of_trust(scene: Scene) -> None:
    with dial(scene.sidecar) as sock:
        got = ask(sock, get(scene.authority, f"https://{scene.authority}/clear"))

    assert got.status != 200


@pytest.mark.parametrize(("host", "sni"), [("other.test", TRUST_HOST), (TRUST_HOST, "other.test")])
def test_names_that_differ_are_refused_as_everywhere(scene: Scene, host: str, sni: str) -> None:
    with secure(scene.sidecar, scene.authority, sni=sni) as sock:
        got = ask(sock, get(f"{host}:{scene.port}", "/mismatch"))

    assert got.status in (403, 421)
    assert got.reason == "identity_mismatch"


@pytest.mark.root
@pytest.mark.parametrize("policy", ["version: 1\n", "version: 1\ndefault: allow\n"], ids=["deny", "allow"])
def test_a_redirected_client_is_answered(policy: str) -> None:
    need_root_and("nft", "curl")
    zone = Zone(names={TRUST_HOST: [INTERNET_V4[0]]})
    search = "nameserver 198.51.100.53\nsearch egress.internal internal\noptions ndots:5\n"
    with intercepted(policy=policy + ALLOW_ADDRESSES, zone=zone, resolv_conf=search) as scene:
        got = scene.run("curl", "-sS", f"https://{TRUST_HOST}/curl")
        assert got.stdout.encode() == BODY, got
        closed = scene.sidecar.event("request_closed", path="/curl")
        assert (closed["host"], closed["status"], closed["upstream_address"]) == (TRUST_HOST, 200, None)
        assert (scene.requests(), scene.asked()) == ([], []), "it has left the pod"
