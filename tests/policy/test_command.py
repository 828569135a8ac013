"""`sidecar policy`: output, complaints and exit codes."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from sidecar.cli.policy import app

GOOD = "version: 1\nrules:\n  - name: api\n    allow: [a.test]\n    methods: [GET]\n"
BROAD = "version: 1\nrules: [{allow: ['**']}]\n"
BAD = "version: 1\nrules: [{allow: ['*a.test']}]\n"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "policy.yaml"


@pytest.mark.parametrize(
    ("text", "options", "code", "answer", "complaint"),
    [
        pytest.param(GOOD, [], 0, "1 rule, default deny, hash ", "", id="a good policy"),
        pytest.param(BROAD, [], 0, "1 rule", ":2:18: warning: rules[0].allow[0]: '**' matches", id="a warning"),
        pytest.param(BROAD, ["--strict"], 1, "1 rule", "warning", id="a warning, strictly"),
        pytest.param(BAD, [], 2, "", ":2:18: rules[0].allow[0]: '*a.test' is not", id="a bad policy"),
    ],
)
def test_check(file: Path, text: str, options: list[str], code: int, answer: str, complaint: str) -> None:
    file.write_text(text)

    result = CliRunner().invoke(app, ["check", str(file), *options])

    assert result.exit_code == code
    assert answer in result.stdout
    assert bool(result.stdout) is bool(answer)
    assert complaint in result.stderr
    assert bool(result.stderr) is bool(complaint)


@pytest.mark.parametrize(
    ("text", "code", "valid", "errors", "warnings"),
    [(GOOD, 0, True, 0, 0), (BROAD, 0, True, 0, 1), (BAD, 2, False, 1, 0)],
)
def test_check_prints_one_json_object(
    file: Path, text: str, code: int, valid: bool, errors: int, warnings: int
) -> None:
    file.write_text(text)

    result = CliRunner().invoke(app, ["check", "--json", str(file)])

    answer = json.loads(result.stdout)
    assert result.exit_code == code
    assert (answer["valid"], len(answer["errors"]), len(answer["warnings"])) == (valid, errors, warnings)


def test_check_reads_the_files_that_a_policy_names_only_where_asked(file: Path) -> None:
    file.write_text("version: 1\ndefault: allow\nupstreams: [{hosts: [a.test], roots: ca.pem}]\n")

    without = CliRunner().invoke(app, ["check", str(file)])
    with_files = CliRunner().invoke(app, ["check", "--files", str(file)])

    assert without.exit_code == 0
    assert with_files.exit_code == 2
    assert f":3:38: upstreams[0].roots: {file.parent}/ca.pem: can't be read" in with_files.stderr


def test_a_policy_is_read_from_standard_input() -> None:
    assert "<stdin>: 1 rule" in CliRunner().invoke(app, ["check", "-"], input=GOOD).stdout
    assert CliRunner().invoke(app, ["check", "-"], input=b"\xff").exit_code == 2


@pytest.mark.parametrize(
    ("arguments", "code", "answer"),
    [
        pytest.param(["https://a.test/x"], 0, ":3: allow: rules[0] 'api' decides (allow a.test)", id="allowed"),
        pytest.param(
            ["https://a.test/x", "--method", "PUT"], 1, "method PUT is not among its methods (GET)", id="denied"
        ),
        pytest.param(["https://b.test/x"], 1, "deny: no rule matches, and the default is deny", id="denied by default"),
        pytest.param(
            ["https://trust.egress.internal/"], 0, "allow: the sidecar answers for it", id="the built-in host"
        ),
        pytest.param(["tcp://trust.egress.internal:22"], 1, "deny: the sidecar answers for it", id="by raw TCP"),
        pytest.param(["b.test"], 2, "", id="no URL"),
    ],
)
def test_explain(file: Path, arguments: list[str], code: int, answer: str) -> None:
    file.write_text(GOOD)

    result = CliRunner().invoke(app, ["explain", str(file), *arguments])

    assert result.exit_code == code
    assert answer in result.stdout
    assert bool(result.stderr) is (code == 2)
    assert "Traceback" not in result.output


def test_a_missing_file_is_bad_input(file: Path) -> None:
    result = CliRunner().invoke(app, ["explain", str(file), "https://a.test"])

    assert (result.exit_code, result.stdout) == (2, "")
    assert "no such file" in result.stderr
