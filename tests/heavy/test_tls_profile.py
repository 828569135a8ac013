"""sslyze finds the client side to be as Mozilla's "intermediate" profile says."""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.live.sidecars import running

pytestmark = [pytest.mark.heavy, pytest.mark.timeout(600)]

VERSION = "6.3.1"


@pytest.fixture(scope="module")
def sslyze() -> Path:
    """The tool in an environment of its own, kept between runs: it wants an older cryptography than the sidecar."""
    folder = Path(tempfile.gettempdir()) / f"egress-tests-{os.getuid()}" / f"sslyze-{VERSION}"
    whole = folder / "installed"
    if not whole.exists():
        shutil.rmtree(folder, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True, timeout=120)
        pip = [str(folder / "bin" / "pip"), "install", "--quiet", "--disable-pip-version-check", f"sslyze=={VERSION}"]
        subprocess.run(pip, check=True, timeout=400)
        whole.touch()
    return folder / "bin" / "sslyze"


@pytest.mark.live
def test_the_client_side_is_compliant_with_mozillas_intermediate_profile(sslyze: Path, tmp_path: Path) -> None:
    # A denied name: TLS is completed as for any other, and nothing is dialled.
    with running(tmp_path / "sidecar", "version: 1\n") as sidecar:
        scan = subprocess.run(
            [
                *(str(sslyze), f"--https_tunnel=http://{sidecar.listen}", "--mozilla_config=intermediate"),
                *(f"--certinfo_ca_file={sidecar.trust}/ca.pem", "denied.test:443"),
            ],
            capture_output=True,
            text=True,
            timeout=300,
        )

    assert scan.returncode == 0, scan.stdout + scan.stderr
    assert "denied.test:443: OK - Compliant." in scan.stdout
    assert "secp521r1" not in scan.stdout.partition("Supported curves:")[2].partition("\n")[0]
