"""What stands in the doctor's way is one line and an exit code; what it finds, a table and lines to paste."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

import sidecar.cli
from sidecar.cli.trust_doctor import as_object, show
from sidecar.errors import SidecarError
from sidecar.trust.diagnosis import Finding
from sidecar.trust.doctor import Report
from sidecar.trust.fixes import Fix, How
from sidecar.trust.outcomes import Outcome

LONG = "--volume " + "x" * 200
REPORT = Report(
    proxy=None,
    trust="/etc/egress/trust",
    mounted=False,
    findings=tuple(
        Finding(
            client=name, label=name, program=f"/usr/bin/{name}", outcome=outcome, read="[/a] file", why=why, fixes=f
        )
        for name, outcome, why, f in (
            ("curl", Outcome.TRUSTED, "", ()),
            ("wget", Outcome.UNTRUSTED, "it reads no variable", (Fix(How.MOUNT, LONG, "{name: egress-trust}"),)),
            ("apt", Outcome.UNTRUSTED, "it reads no variable", (Fix(How.MOUNT, LONG, "{name: egress-trust}"),)),
        )
    ),
)


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--proxy", "http://127.0.0.1:1"], 3, "can't be reached through http://127.0.0.1:1"),
        (["--proxy", "socks5://user:secret@127.0.0.1"], 2, "isn't http://HOST:PORT"),
        (["--only", "lynx"], 2, "is no client that the doctor knows; write one of aiohttp, apt"),
        (["--pid", "4194304"], 2, "no such process here"),
        (["--root", "/nowhere"], 2, "is no folder"),
    ],
)
def test_what_stands_in_the_way_is_told_by_the_exit_code(arguments: list[str], code: int, words: str) -> None:
    result = CliRunner().invoke(sidecar.cli.app, ["trust", "doctor", *arguments])

    assert isinstance(result.exception, SidecarError)
    assert result.exception.exit_code == code
    assert words in str(result.exception)
    assert "secret" not in str(result.exception)


@pytest.mark.parametrize("columns", ["80", "120"])
def test_lines_to_paste_are_never_wrapped_and_stand_there_once(
    columns: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    monkeypatch.setenv("NO_COLOR", "1")

    show(REPORT)

    lines = capsys.readouterr().out.splitlines()
    assert lines.count(f"    {LONG}") == 1
    assert lines.count("    - {name: egress-trust}") == 1
    assert "wget, apt: it reads no variable" in lines
    assert any("[/a] file" in line for line in lines)
    assert all(len(line) <= int(columns) for line in lines if LONG not in line)
    assert lines[-1] == "1 of 3 clients trust the session CA"


def test_json_has_the_shape_that_is_documented() -> None:
    document = json.loads(as_object(REPORT))
    page = (Path(__file__).parents[2] / "docs" / "doctor.md").read_text()
    example = json.loads(page.split("```json\n")[1].split("```")[0])

    assert document.keys() == example.keys()
    assert document["clients"][1].keys() == example["clients"][0].keys()
    assert document["clients"][1]["fixes"][0].keys() == example["clients"][0]["fixes"][0].keys()
    assert (document["trusted"], document["clients"][1]["outcome"]) == (False, "untrusted")


def test_no_client_at_all_is_no_success() -> None:
    assert not Report(proxy=None, trust="/t", mounted=True, findings=()).trusted
