"""What the tests of the method share."""

import jax
import pytest

from tests import toy


@pytest.fixture(scope="module", autouse=True)
def quick_compilation():
    with toy.quick_compilation():
        yield


@pytest.fixture(scope="module")
def x64():
    """Float64, in which a formula and its differences tell a gradient to many digits."""
    with jax.enable_x64(True):
        yield
