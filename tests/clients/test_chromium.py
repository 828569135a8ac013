"""Chromium loads a page through the sidecar once NSS knows the session CA, and not before."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.clients import served
from tests.clients.client import MARKER
from tests.live.intercepted import ALLOW_ADDRESSES, Intercepted, Zone, intercepted
from tests.live.pod import INTERNET_V4, WORKLOAD_UID, need_root_and
from tests.live.sidecars import until

pytestmark = [pytest.mark.live, pytest.mark.root, pytest.mark.heavy, pytest.mark.timeout(300)]

_HOST: Final = "browser.clients.example"
_POLICY: Final = f'version: 1\nrules: [{{allow: ["{_HOST}"]}}]\n{ALLOW_ADDRESSES}'


@pytest.fixture(scope="module")
def scene() -> Iterator[Intercepted]:
    need_root_and("nft", "chromium", "certutil")
    with intercepted(policy=_POLICY, zone=Zone(names={_HOST: INTERNET_V4[:1]})) as scene:
        served.write(scene.www, _HOST)
        yield scene


def browse(scene: Intercepted, *options: str) -> subprocess.CompletedProcess[str]:
    """Load the page as the workload; a profile of its own each time, the home's NSS database."""
    profile = scene.home / f"profile-{len(list(scene.home.iterdir()))}"
    command = ["chromium", "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
    command += ["--disable-background-networking", "--disable-component-update", f"--user-data-dir={profile}"]
    return scene.run(*command, *options, f"https://{_HOST}/", trusting=False, timeout=120)


def know(scene: Intercepted) -> None:
    """What docs/trust.md says: the CA into the user's NSS database."""
    database = scene.home / ".pki" / "nssdb"
    database.mkdir(parents=True)
    place = ["certutil", "-d", f"sql:{database}"]
    add = ["-A", "-t", "C,,", "-n", "egress", "-i", str(scene.trust / "ca.pem")]
    for arguments in (["-N", "--empty-password"], add):
        subprocess.run([*place, *arguments], check=True, capture_output=True, timeout=60)
    for path in (database.parent, database, *database.iterdir()):
        os.chown(path, WORKLOAD_UID, WORKLOAD_UID)


def test_chromium_loads_a_page_once_nss_knows_the_ca(scene: Intercepted, tmp_path: Path) -> None:
    refused = browse(scene, "--dump-dom")
    assert MARKER not in refused.stdout
    until(lambda: scene.sidecar.events("tls_handshake_failed", host=_HOST), "refused handshake")
    assert not scene.sidecar.events("request_allowed", host=_HOST, path="/")

    know(scene)
    loaded = browse(scene, "--dump-dom")
    assert MARKER in loaded.stdout, loaded.stderr
    until(lambda: scene.sidecar.events("request_closed", host=_HOST, path="/", status=200), "closed request")

    shown = browse(scene, f"--screenshot={scene.home / 'page.png'}", "--window-size=800,300")
    assert (scene.home / "page.png").exists(), shown.stderr
    shutil.copy(scene.home / "page.png", tmp_path)
