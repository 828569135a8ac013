import json

import pytest
import typer
from typer.testing import CliRunner

from sidecar.cli.netfilter import netfilter
from sidecar.errors import Exit
from sidecar.netfilter.ruleset import RulesetError

APP = typer.Typer()
APP.command()(netfilter)


def test_dry_run_prints_what_would_be_applied() -> None:
    result = CliRunner().invoke(
        APP,
        ["--dry-run", "--sidecar-uid", "500", "--exclude-cidr", "10.1.0.0/16", "--exclude-cidr", "10.2.0.0/16"],
        env={"EGRESS_EXCLUDE_PORT": "22,5432", "EGRESS_TRANSPARENT_PORT": "15999"},
    )

    assert result.exit_code == Exit.YES
    for expected in (
        "meta skuid 500 accept",
        "redirect to :15999",
        "ip daddr 10.1.0.0/16",
        "ip daddr 10.2.0.0/16",
        "th dport 22 accept",
        "th dport 5432 accept",
    ):
        assert expected in result.stdout


def test_dry_run_in_json_holds_ruleset_and_routes() -> None:
    answer = json.loads(CliRunner().invoke(APP, ["--dry-run", "--json"]).stdout)

    assert answer["ruleset"].startswith("add table inet egress_sidecar\n")
    assert isinstance(answer["routes"], list)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        pytest.param(["--exclude-cidr", "10.1.2.3/8"], "10.1.2.3/8", id="host bits set"),
        pytest.param(["--exclude-port", "ssh"], "ssh: not a port", id="a port by name"),
        pytest.param(["--check", "--remove"], "exclude each other", id="two things at once"),
    ],
)
def test_bad_input_is_refused(arguments: list[str], says: str) -> None:
    result = CliRunner().invoke(APP, arguments)

    assert isinstance(result.exception, RulesetError)
    assert says in str(result.exception)
