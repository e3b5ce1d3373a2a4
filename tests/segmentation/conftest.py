"""What the tests of the segmentation share."""

import pytest

from tests import toy


@pytest.fixture(scope="module", autouse=True)
def quick_compilation():
    with toy.quick_compilation():
        yield
