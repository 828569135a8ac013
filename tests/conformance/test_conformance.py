"""As a server of HTTP/2 the sidecar does what RFC 9113 asks; between two WebSocket peers it might as well be absent."""

from pathlib import Path

import pytest

from tests.conformance.table import Http2Result, WebSocketResult, page, run

pytestmark = pytest.mark.live

PAGE = Path(__file__).parents[2] / "docs" / "conformance.md"


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Http2Result], list[WebSocketResult]]:
    return run(tmp_path_factory.mktemp("conformance"))


def test_http2_conforms(results: tuple[list[Http2Result], list[WebSocketResult]]) -> None:
    wrong = [f"{r.case.section} {r.case.sent}: {r.outcome}, not {r.case.may}" for r in results[0] if not r.conforms]
    assert not wrong, "\n".join(wrong)


def test_websockets_are_told_the_same_through_the_sidecar(
    results: tuple[list[Http2Result], list[WebSocketResult]],
) -> None:
    wrong = [f"{r.case.section} {r.case.sent}: {r.direct}, through {r.through}" for r in results[1] if not r.conforms]
    assert not wrong, "\n".join(wrong)


def test_the_page_is_current(results: tuple[list[Http2Result], list[WebSocketResult]]) -> None:
    assert PAGE.read_text() == page(*results), "run: python -m tests.conformance > docs/conformance.md"
