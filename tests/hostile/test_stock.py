"""The driver and mitmproxy's own handler: the same bytes in, the same verdicts, and the same bytes upstream."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.hostile.mutations import MUTATIONS, Mutation
from tests.hostile.test_requests import POLICY, Outcome, outcomes
from tests.live.sidecars import Sidecar
from tests.live.test_stock import stock

pytestmark = pytest.mark.live


@contextmanager
def stock_handler(folder: Path, root: Path) -> Iterator[Sidecar]:
    folder.mkdir()
    with stock(folder, "mitmdump", root, POLICY, "up.test") as sidecar:
        yield sidecar


def told(outcome: Outcome) -> tuple[object, ...]:
    """Without the upstream's port; where the client leaves in the middle, how far it came is a matter of time."""
    if outcome.mutation.fate == "cut":
        return (outcome.judged[:1],)
    upstream = tuple(re.sub(rb"up\.test:[0-9]+", b"up.test", data) for data in outcome.upstream if data)
    return outcome.judged, upstream


@pytest.mark.parametrize(
    ("tls", "mutations"),
    [
        pytest.param(False, MUTATIONS[::5], id="plain, one in five"),
        pytest.param(True, MUTATIONS[3::12], id="inside of TLS, one in twelve"),
        pytest.param(False, MUTATIONS, id="plain", marks=pytest.mark.heavy),
        pytest.param(True, MUTATIONS, id="inside of TLS", marks=pytest.mark.heavy),
    ],
)
def test_both_handlers_judge_and_forward_alike(tls: bool, mutations: list[Mutation], tmp_path: Path) -> None:
    (tmp_path / "ours").mkdir()
    (tmp_path / "stock").mkdir()
    by_driver = outcomes(tmp_path / "ours", mutations, tls=tls)
    by_stock = outcomes(tmp_path / "stock", mutations, tls=tls, start=stock_handler)

    differ = [
        f"{a.mutation.id}: {told(a)}, stock {told(b)}"
        for a, b in zip(by_driver, by_stock, strict=True)
        if told(a) != told(b)
    ]
    assert not differ, "\n".join(differ)
    assert any(outcome.upstream for outcome in by_driver)
