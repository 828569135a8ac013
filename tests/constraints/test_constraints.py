"""The page says what clients do: those that are quick to ask are asked again."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.constraints.chains import Place, Server, servers
from tests.constraints.clients import CLIENTS, Client
from tests.constraints.table import PAGE, Row, measure, page, rows_of

pytestmark = [pytest.mark.live, pytest.mark.heavy, pytest.mark.timeout(900)]  # Go and Java are compiled first


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[tuple[Place, str], Server]]:
    with servers(tmp_path_factory.mktemp("constraints")) as listening:
        yield listening


@pytest.mark.parametrize("client", [pytest.param(c, id=c.name) for c in CLIENTS if not c.optional])
def test_a_client_does_what_its_row_says(
    client: Client, found: dict[tuple[Place, str], Server], tmp_path: Path
) -> None:
    if not client.is_here:
        if os.environ.get("CI"):
            pytest.fail(f"{' or '.join(client.needs)} is missing")
        pytest.skip(f"{' or '.join(client.needs)} is missing")

    row = measure(client, found, tmp_path)

    assert rows_of(PAGE.read_text())[client.name].verdict == row.verdict


def test_the_page_has_a_row_for_each_client() -> None:
    assert list(rows_of(PAGE.read_text())) == [client.name for client in CLIENTS]


def test_a_page_is_read_as_it_was_written() -> None:
    rows = [Row("a", "A", "names", "names, addresses", "below it refused", "1.0"), Row("b", "B", "x", "y", "z", "2")]
    text = page(PAGE.read_text(), rows)

    assert list(rows_of(text).values()) == rows
    assert page(text, rows) == text
