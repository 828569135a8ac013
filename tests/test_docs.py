"""The documents say what is there: targets, subcommands, schema, kinds and reasons of events, links."""

import json
import re
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import pytest
import typer.main
from typer.core import TyperGroup

from sidecar.cli import app
from sidecar.events.model import EVENTS
from sidecar.events.schema import event_schema
from sidecar.policy import parse_policy
from sidecar.reasons import HandshakeReason, Reason

ROOT = Path(__file__).parents[1]
PAGES = sorted([ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").rglob("*.md")])

_CODE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def commands(text: str) -> Iterator[str]:
    """What a page tells its reader to type: fenced shell, and code inside of sentences."""
    for language, body in _CODE.findall(text):
        if language in ("sh", "console"):
            yield from body.splitlines()
    yield from re.findall(r"`([^`\n]+)`", _CODE.sub("", text))


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_make_targets_exist(page: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))

    named = set(chain.from_iterable(re.findall(r"^\s*make ([a-z-]+)", line) for line in commands(page.read_text())))

    assert named <= targets


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_subcommands_and_their_options_exist(page: Path) -> None:
    group = typer.main.get_command(app)
    for line in commands(page.read_text()):
        found = re.search(r"(?:^|/|\$ )sidecar((?: [a-z]+)+)((?: .*)?)$", line.replace("\\", ""))
        if found is None:
            continue
        command, words = group, found[1].split()
        while isinstance(command, TyperGroup) and words:
            assert words[0] in command.commands, f"{line!r}: there is no such subcommand"
            command = command.commands[words.pop(0)]
        known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
        options = re.findall(r"(?<= )--?[a-z][a-z-]*", found[2].partition(" -- ")[0].partition("#")[0])
        assert set(options) <= known | {"--help"}, line


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_resolve(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", _CODE.sub("", page.read_text())):
        if "://" not in target:
            assert (page.parent / target.partition("#")[0]).exists(), target


@pytest.mark.parametrize("page", [ROOT / "README.md", ROOT / "docs" / "quickstart.md"], ids=name_of)
def test_policies_that_users_copy_are_valid(page: Path) -> None:
    policies = re.findall(r"^version: 1\n(?:.+\n)*?(?=```|END)", page.read_text(), re.MULTILINE)

    assert policies
    for text in policies:
        parse_policy(text, page.name)


def test_every_page_is_reachable_from_the_index() -> None:
    index = (ROOT / "docs" / "README.md").read_text()
    pages = {page.name for page in (ROOT / "docs").glob("*.md")} - {"README.md"}

    assert {page for page in pages if f"({page})" not in index} == set()


def test_every_decision_is_listed() -> None:
    folder = ROOT / "docs" / "decisions"
    listed = set(re.findall(r"\((\d{4}-[^)]+)\)", (folder / "README.md").read_text()))

    assert {page.name for page in folder.glob("[0-9]*.md")} == listed


def test_the_committed_schema_is_that_of_the_models() -> None:
    committed = json.loads((ROOT / "docs" / "event-schema.json").read_text())

    assert committed == json.loads(json.dumps(event_schema())), (
        "run: .venv/bin/sidecar events schema > docs/event-schema.json"
    )


def test_every_kind_and_every_reason_is_explained() -> None:
    page = (ROOT / "docs" / "events.md").read_text()
    words = [*(kind.name for kind in EVENTS), *Reason, *HandshakeReason]

    assert [word for word in words if f"`{word}`" not in page] == []


def test_every_kind_is_listed_with_its_level() -> None:
    rows = re.findall(
        r"^\| `(\w+)` \| (debug|info|warning|error) \|", (ROOT / "docs" / "events.md").read_text(), re.MULTILINE
    )

    assert dict(rows) == {kind.name: kind.level for kind in EVENTS}
