import jax
import jax.numpy as jnp
import pytest

from gxdistill.convolution.conv import conv2d
from gxdistill.models import compiler_options
from gxdistill.runtime import platform


def test_a_program_is_written_for_the_platform_it_is_planned_for():
    arguments = jnp.ones((1, 8, 8, 2)), jnp.ones((3, 3, 2, 4))

    def operations():
        return {str(e.primitive) for e in jax.make_jaxpr(conv2d)(*arguments).jaxpr.eqns}

    with platform.planned_for("tpu"):
        assert platform.platform() == "tpu"
        assert operations() == {"conv_general_dilated"}
        assert compiler_options() == {}
        with platform.planned_for("gpu"):
            assert platform.platform() == "gpu"
        assert platform.platform() == "tpu"
    assert platform.platform() == jax.default_backend()
    with pytest.raises(KeyError), platform.planned_for("tpu"):
        raise KeyError
    assert platform.platform() == jax.default_backend()
