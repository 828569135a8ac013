"""checkov over the chart's output and the examples: nothing but the exceptions in deploy/helm/.checkov.yaml."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.deploy.chart import ALL_ON, EXAMPLES, ROOT, render

VERSION = "3.3.30"
CONFIG = ROOT / "deploy" / "helm" / ".checkov.yaml"

pytestmark = [pytest.mark.heavy, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def checkov(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """checkov in an environment of its own: it brings more packages than the sidecar has."""
    folder = tmp_path_factory.mktemp("checkov")
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    subprocess.run([folder / "bin" / "pip", "install", "--quiet", f"checkov=={VERSION}"], check=True)
    return folder / "bin" / "checkov"


def findings(checkov: Path, folder: Path, config: Path = CONFIG) -> list[str]:
    command: list[str | Path] = [checkov, "--directory", folder, "--config-file", config, "--output", "json"]
    answer = subprocess.run(command, capture_output=True, check=False, cwd=folder)
    report = json.loads(answer.stdout)
    assert report["summary"]["parsing_errors"] == 0
    assert report["summary"]["passed"] > 50
    return [
        f"{found['check_id']} {found['check_name']} {found['resource']}" for found in report["results"]["failed_checks"]
    ]


@pytest.fixture
def manifests(tmp_path: Path) -> Path:
    for name, values in (("default", {}), ("all-on", ALL_ON)):
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump_all(render(values)))
    for path in (*EXAMPLES.glob("*.yaml"), *(ROOT / "deploy" / "pki" / "kubernetes").glob("*.yaml")):
        if path.name != "values.yaml":
            shutil.copy(path, tmp_path)
    return tmp_path


def test_nothing_is_found_but_the_exceptions(checkov: Path, manifests: Path) -> None:
    assert findings(checkov, manifests) == []


def test_every_exception_is_needed_and_reasoned(
    checkov: Path, manifests: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    text = CONFIG.read_text()
    skipped = yaml.safe_load(text)["skip-check"]
    without = tmp_path_factory.mktemp("config") / "checkov.yaml"
    without.write_text(text.partition("skip-check:")[0])

    assert {found.split()[0] for found in findings(checkov, manifests, without)} == set(skipped)
    for check in skipped:
        assert re.search(rf"{check} # .{{20,}}", text), check
