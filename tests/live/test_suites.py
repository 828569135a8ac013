"""Outside suites run against the sidecar, where they lie beside the checkout."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
SHARED = ROOT.parent / "shared"

pytestmark = [
    pytest.mark.live,
    pytest.mark.root,
    pytest.mark.skipif(not (SHARED / "suites").is_dir(), reason="the suites aren't beside this checkout"),
    pytest.mark.skipif(os.geteuid() != 0 and os.environ.get("CI") != "true", reason="needs root"),
]


def run(suite: str, tmp_path: Path, output: str, hosts: str, *addresses: str, seconds: int) -> str:
    """Run a suite from a copy of its folder, since it writes beside itself; its printed score."""
    for folder in ("suites", "vectors"):
        shutil.copytree(SHARED / folder, tmp_path / folder)
    for script in (tmp_path / "suites").rglob("*.sh"):
        script.chmod(0o755)
    # -P: a module of tests/live isn't to stand for one of Python's (secrets.py).
    program = str(Path(__file__).with_name("suite_proxy.py"))
    proxy = [sys.executable, "-P", program, "{port}", "{upstream_ca}", "{confdir}"]
    variables = os.environ | {
        "PY": sys.executable,
        "PYTHONPATH": str(ROOT),
        "PROXY_CMD": " ".join([*proxy, hosts, *addresses]),
        "PROXY_CA": "{confdir}/trust/ca.pem",
        "TMPDIR": str(tmp_path),
    }
    result = subprocess.run(
        ["bash", str(tmp_path / "suites" / suite / "run.sh"), str(tmp_path / output)],
        env=variables,
        capture_output=True,
        text=True,
        timeout=seconds,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def test_bad_certificates(tmp_path: Path) -> None:
    run("badcerts", tmp_path, "out.json", "-", "127.0.0.0/8", seconds=100)
    results: list[dict[str, Any]] = json.loads((tmp_path / "out.json").read_text())

    for kind, count in (("must", 47), ("pedantic", 9)):
        of_kind = [result for result in results if result["cls"] == kind]
        assert len(of_kind) == count
        assert [result["id"] for result in of_kind if not result["ok"]] == []


def test_agent_egress_bench(tmp_path: Path) -> None:
    score = run("aeb", tmp_path, "out.jsonl", "{policy}", "198.51.100.7/32", seconds=100).splitlines()[-1]

    assert "containment 61 of 61" in score
    assert "21 of 21" in score
    assert "benign let through 25 of 25" in score


@pytest.mark.heavy
@pytest.mark.timeout(1500)
def test_path_validation(tmp_path: Path) -> None:
    """178 cases of x509-limbo, whose leaves live a thousand years: more than plain mitmproxy decides right (118)."""
    if shutil.which("faketime") is None:
        pytest.fail("needs faketime: apt-get install faketime")
    addresses = [entry.partition("/")[0] for entry in (SHARED / "suites" / "limbo" / "ips").read_text().split()]
    run("limbo", tmp_path, "out.json", "-", "127.0.0.0/8", "::1", *addresses, "accept=long_lived", seconds=1400)
    results = json.loads((tmp_path / "out.json").read_text())

    agree = [result["id"] for result in results if result["expected"] == result["actual"]]
    accepted = [r["id"] for r in results if r["expected"] == "FAILURE" and r["actual"] == "SUCCESS"]
    assert len(results) == 178
    assert len(agree) >= 122
    assert [name for name in accepted if name.startswith("cve::")] == []
    assert not any(result.get("request_leaked") for result in results)
