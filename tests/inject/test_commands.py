"""The commands around the webhook: what it would do to a pod, and the fence check that stays beside the workload."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import jsonpatch
import pytest
import yaml
from typer.testing import CliRunner

from sidecar.cli import app
from tests.inject.pods import CONFIG, ours, pod


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "config.yaml").write_text(CONFIG)
    (tmp_path / "pod.yaml").write_text(json.dumps(pod()))
    return tmp_path


def inject(folder: Path, *arguments: str) -> tuple[int, str]:
    command = ["inject", "pod", str(folder / "pod.yaml"), "--config", str(folder / "config.yaml"), *arguments]
    result = CliRunner().invoke(app, command)
    return result.exit_code, result.output


def test_a_pod_is_printed_as_the_webhook_makes_it(folder: Path) -> None:
    code, output = inject(folder, "--namespace", "agents-1")
    _, patch = inject(folder, "--namespace", "agents-1", "--patch")

    assert code == 0
    assert yaml.safe_load(output) == jsonpatch.apply_patch(pod(), json.loads(patch))
    assert "egress-sidecar" in output


def test_a_pod_that_is_refused_gives_exit_code_1(folder: Path) -> None:
    (folder / "pod.yaml").write_text(json.dumps(pod(annotations=ours(policy="anything"))))

    code, output = inject(folder, "--namespace", "agents-1")

    assert code == 1
    assert "write one of agents, strict" in output


def test_the_configuration_is_checked(folder: Path) -> None:
    result = CliRunner().invoke(app, ["inject", "check", "--config", str(folder / "config.yaml")])

    assert result.exit_code == 0
    assert "5 rules for namespaces, 2 policies" in result.output


_PROGRAM = """
import sys
import sidecar.cli.fence as fence
from sidecar.cli import main
from sidecar.fence.verdict import Report

async def check(*_, **__):
    return Report(())

fence.run_check = check
sys.argv = ["sidecar", "fence", "check", "--json", *sys.argv[1:]]
main()
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_fence_check_stays_after_its_answer_until_it_is_ended(number: signal.Signals) -> None:
    """Its result is made up, so that nothing is sent; the waiting is real."""
    command = [sys.executable, "-c", _PROGRAM]
    at_once = subprocess.run(command, capture_output=True, text=True, timeout=30)

    with subprocess.Popen([*command, "--then-sleep"], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == at_once.stdout
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.5)
        process.send_signal(number)
        assert process.wait(10) == at_once.returncode
