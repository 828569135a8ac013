"""One storage of images for all heavy tests: they are built once."""

from collections.abc import Iterator

import pytest

from tests.heavy.images import Images
from tests.heavy.images import images as make_images


@pytest.fixture(scope="session")
def images() -> Iterator[Images]:
    with make_images() as made:
        yield made
