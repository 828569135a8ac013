"""Each client of docs/clients.md, and that the page says what is seen."""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import cast

import pytest

from tests.clients import table
from tests.clients.client import Client, Row
from tests.clients.laboratory import laboratory
from tests.clients.rows import CLIENTS
from tests.clients.tools import Tools, need
from tests.live.pod import need_root_and

pytestmark = [pytest.mark.live, pytest.mark.root, pytest.mark.timeout(600)]

type Observe = Callable[[Client], Row]


def _parameter(client: Client) -> object:
    return pytest.param(client, id=client.name, marks=() if client.quick else pytest.mark.heavy)


@pytest.fixture(scope="module")
def observe(request: pytest.FixtureRequest) -> Iterator[Observe]:
    """Runs all chosen clients from the first call on, two at a time."""
    chosen: list[Client] = [
        cast(Client, item.callspec.params["client"])
        for item in request.session.items
        if isinstance(item, pytest.Function) and item.function is test_is_as_the_page_says
    ]
    quick = all(client.quick for client in chosen)
    need_root_and("nft", "unshare")
    need(chosen, quick=quick)
    tools = Tools()
    tools.make(quick=quick)
    with laboratory(chosen, tools) as lab, ThreadPoolExecutor(2) as pool:
        rows: dict[str, Future[Row]] = {client.name: pool.submit(lab.observe, client) for client in chosen}
        yield lambda client: rows[client.name].result()
        for row in rows.values():
            row.cancel()


@pytest.mark.parametrize("client", [_parameter(client) for client in CLIENTS])
def test_is_as_the_page_says(observe: Observe, client: Client) -> None:
    row = observe(client)

    assert row.problems == ()
    assert table.lines(table.PAGE.read_text()).get(client.name) == table.line(row, version=False), (
        f"docs/clients.md isn't right about {client.name}: run python -m tests.clients"
    )


def test_the_page_has_these_clients_and_no_others() -> None:
    assert list(table.lines(table.PAGE.read_text())) == [client.name for client in CLIENTS]
