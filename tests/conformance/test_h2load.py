"""nghttp2's client, which is strict and knows nothing of proxies: redirected, 50 streams at once."""

import re

import pytest

from tests.live.intercepted import ALLOW_ADDRESSES, Intercepted, Zone, intercepted
from tests.live.pod import INTERNET_V4

pytestmark = [pytest.mark.live, pytest.mark.root, pytest.mark.heavy]

POLICY = "version: 1\nrules: [{allow: [api.example.com]}]\n" + ALLOW_ADDRESSES
REQUESTS = 2000


def h2load(scene: Intercepted, url: str) -> str:
    done = scene.run("h2load", "-n", str(REQUESTS), "-c", "4", "-m", "50", "--npn-list=h2,http/1.1", url)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_h2load_is_answered_on_every_stream() -> None:
    zone = Zone(names={"api.example.com": INTERNET_V4[:1]})
    with intercepted(policy=POLICY, zone=zone) as scene:
        denied = h2load(scene, "https://denied.example.com/")
        allowed = h2load(scene, "https://api.example.com/")  # whose server speaks HTTP/1.1, and so does h2load then

    assert "Application protocol: h2\n" in denied
    assert re.search(rf"{REQUESTS} done, 0 succeeded, {REQUESTS} failed, 0 errored, 0 timeout", denied), denied
    assert f"0 2xx, 0 3xx, {REQUESTS} 4xx, 0 5xx" in denied
    assert "Application protocol: http/1.1\n" in allowed
    assert f"{REQUESTS} 2xx, 0 3xx, 0 4xx, 0 5xx" in allowed
