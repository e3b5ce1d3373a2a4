"""A small package on the disk, for all that harm, sign or read one."""

import pytest

from gxdistill import package
from tests.packages import make


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    path = tmp_path_factory.mktemp("saved") / "tiny.gxd"
    package.save(path, make())
    return path


@pytest.fixture
def copy(saved, tmp_path):
    """A copy to be harmed."""
    path = tmp_path / "tiny.gxd"
    path.write_bytes(saved.read_bytes())
    return path
