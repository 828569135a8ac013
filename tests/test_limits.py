"""The limits as settings: parsed with a complaint that helps, fitted to the descriptors, documented as they are."""

from pathlib import Path

import pytest

from sidecar.errors import SidecarError
from sidecar.limits import KNOWN, SPARE_DESCRIPTORS, Limits, parse_limits, table

PAGE = Path(__file__).parents[1] / "docs" / "limits.md"


def test_a_limit_is_set_by_its_name() -> None:
    assert parse_limits(["head_bytes=8192", "head_seconds=2.5"]) == Limits(head_bytes=8192, head_seconds=2.5)


def test_what_is_not_set_stays_as_it_was() -> None:
    assert parse_limits(["head_bytes=8192"], Limits(idle_seconds=5)).idle_seconds == 5


@pytest.mark.parametrize(
    ("entry", "complaint"),
    [
        pytest.param("head_byte=1", "did you mean head_bytes?", id="a mistyped name"),
        pytest.param("x=1", "write one of client_connections, upstream_connections", id="no such name"),
        pytest.param("head_bytes", "isn't NAME=VALUE", id="no value"),
        pytest.param("head_bytes=1k", "write a number from 4096 to 16777216", id="no number"),
        pytest.param("head_bytes=1", "write a number from 4096 to 16777216", id="too little"),
        pytest.param("client_connections=1.5", "write a number from 1 to", id="half a connection"),
        pytest.param("idle_seconds=0", "write a number from 1 to", id="no time at all"),
    ],
)  # fmt: skip
def test_a_mistake_is_answered_with_what_to_write(entry: str, complaint: str) -> None:
    with pytest.raises(SidecarError, match="--limit") as error:
        parse_limits([entry])
    assert complaint in str(error.value)


def test_every_default_is_in_its_range() -> None:
    defaults = Limits()

    assert [name for name, known in KNOWN.items() if not known.least <= getattr(defaults, name) <= known.most] == []


def test_what_refuses_has_a_reason_and_an_event() -> None:
    assert [name for name, known in KNOWN.items() if known.reason is not None and not known.event] == []


@pytest.mark.parametrize("descriptors", [97, 256, 1024, 4096, 10**6])
def test_connections_fit_the_descriptors(descriptors: int) -> None:
    fitting = Limits().fitting(descriptors)

    assert fitting.client_connections >= 1 and fitting.upstream_connections >= 1
    taken = fitting.client_connections + fitting.upstream_connections
    assert taken <= max(2, descriptors - SPARE_DESCRIPTORS)
    assert (fitting == Limits()) is (descriptors > 8192)


def test_the_documented_table_is_that_of_the_model() -> None:
    assert table() in PAGE.read_text(), "put the output of: .venv/bin/sidecar limits into docs/limits.md"
