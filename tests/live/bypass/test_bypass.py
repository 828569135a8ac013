"""Each attempt of the matrix, and that the page says what was seen."""

from collections.abc import Iterator

import pytest

from tests.live.bypass import table
from tests.live.bypass.lab import Lab, laboratory
from tests.live.bypass.scenes import SCENES, Scene
from tests.live.bypass.vector import Vector
from tests.live.bypass.vectors import SECTIONS
from tests.live.sidecars import check_lines

pytestmark = [pytest.mark.live, pytest.mark.root]

VECTORS = [
    pytest.param(vector, id=f"{title}: {vector.id}") for title, vectors in SECTIONS.items() for vector in vectors
]


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with laboratory() as lab:
        yield lab


@pytest.mark.parametrize("vector", VECTORS)
def test_is_held(lab: Lab, vector: Vector) -> None:
    row = lab.observe(vector)

    assert row.problems == ()
    assert table.line(row) in table.PAGE.read_text(), "docs/bypass-matrix.md: run python -m tests.live.bypass"


def test_every_connection_of_an_attacker_has_its_closing_record(lab: Lab) -> None:
    lab.stop()

    check_lines(lab.lines())
    assert not [line for line in lab.lines() if line["event"] == "internal_error"]
    assert "Traceback" not in lab.stderr()
    lab.start_sidecar()


@pytest.mark.parametrize("scene", [pytest.param(scene, id=scene.id) for scene in SCENES])
def test_is_held_when_the_sidecar_is_gone(lab: Lab, scene: Scene) -> None:
    row = scene.play(lab)

    assert row.problems == ()
    assert table.line(row) in table.PAGE.read_text(), "docs/bypass-matrix.md: run python -m tests.live.bypass"


def test_nothing_came_late(lab: Lab) -> None:
    lab.fenced.left()

    assert lab.forbidden & lab.fenced.ever == set()


def test_the_page_has_no_other_rows() -> None:
    ids = [vector.id for vectors in SECTIONS.values() for vector in vectors] + [scene.id for scene in SCENES]

    assert len(set(ids)) == len(ids)
    assert table.ids(table.PAGE.read_text()) == ids
