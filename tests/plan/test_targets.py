import importlib.util

import pytest

from gxdistill.errors import UserError
from gxdistill.plan import targets


@pytest.mark.parametrize("name", targets.NAMES)
def test_every_description_is_whole(name):
    target = targets.load(name)
    assert target.memory > 1e9
    assert target.bandwidth > 1e8
    assert set(target.flops) == {"float32", "bfloat16"}
    assert target.source
    assert ("gpu_device_info" in target.compiler) == (target.platform == "gpu")


def test_an_unknown_target_names_the_known_ones():
    with pytest.raises(UserError, match=r"a100, cpu, h100, h200, tpu-v5e-8, .*Did you mean h100"):
        targets.load("h10")


@pytest.mark.parametrize(
    ("name", "package"), [("tpu-v5e-8", "libtpu"), ("h100", "jax-cuda12-plugin")]
)
def test_a_compiler_that_is_missing_is_named(name, package, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(UserError, match=rf"the package {package}\. .*pip install 'jax\["):
        targets.devices(targets.load(name))
