"""What all tests share: the compilation cache, the real data, and no skipping in CI."""

import os
from importlib.util import find_spec
from pathlib import Path

import pytest

from gxdistill.runtime import compile_cache, environment

ROOT = Path(__file__).parents[1]

# Flower has an environment of its own, in which `make test` runs these.
collect_ignore = [] if find_spec("flwr") else ["federated/flower"]


# Before anything imports JAX; the commands that tests start inherit it.
environment.pin()
compile_cache.enable(print)


@pytest.fixture(scope="session")
def data_root() -> Path:
    """The folder of the public data sets, which do not come with the project."""
    root = Path(os.environ.get("GXDISTILL_DATA") or ROOT / "../shared/data").resolve()
    if not root.is_dir():
        pytest.skip(f"needs the public data sets: no folder {root}; set GXDISTILL_DATA to theirs")
    return root


@pytest.fixture(scope="session")
def git_checkout() -> None:
    """Skips what asks git, where the sources were unpacked from a source distribution."""
    if not (ROOT / ".git").exists():
        pytest.skip(f"needs a git checkout: no .git in {ROOT}")


@pytest.fixture(scope="session")
def run(tmp_path_factory) -> Path:
    """A working folder in which the demo's smoke job has run to its end; not to be changed."""
    from gxdistill.cli import main
    from tests import toy

    workdir = tmp_path_factory.mktemp("run")
    # Who asks first may compile quickly, to other bits than a receiver's.
    with toy.quick_compilation(False):
        main.main(["demo", f"--config={ROOT}/configs/demo.py:smoke", f"--workdir={workdir}"])
    return workdir


def _forbidden_skips(config: pytest.Config) -> list:
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None or not os.environ.get("CI"):  # one of several processes has no reporter
        return []
    return reporter.stats.get("skipped", [])


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    if _forbidden_skips(session.config):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter, config) -> None:
    skips = _forbidden_skips(config)
    if skips:
        terminalreporter.section("CI allows no skip", red=True)
    for report in skips:
        terminalreporter.line(f"{report.nodeid}: {report.longrepr[2]}")
