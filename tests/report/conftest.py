import shutil
from pathlib import Path

import pytest

from gxdistill import report
from tests.report import stages


@pytest.fixture(scope="session")
def whole(tmp_path_factory):
    """A working folder in which every stage has left its files, and its page."""
    workdir = tmp_path_factory.mktemp("whole")
    stages.write_all(workdir)
    report.write(workdir, workdir / "package.gxd")
    return workdir


@pytest.fixture
def workdir(whole, tmp_path):
    """A copy to spoil."""
    return Path(shutil.copytree(whole, tmp_path / "job"))
