import jax
import jax.numpy as jnp
import pytest

from gxdistill import backend
from gxdistill.models import compiler_options
from gxdistill.models.conv import conv2d


def test_a_program_is_written_for_the_platform_it_is_planned_for():
    arguments = jnp.ones((1, 8, 8, 2)), jnp.ones((3, 3, 2, 4))

    def operations():
        return {str(e.primitive) for e in jax.make_jaxpr(conv2d)(*arguments).jaxpr.eqns}

    with backend.planned_for("tpu"):
        assert backend.platform() == "tpu"
        assert operations() == {"conv_general_dilated"}
        assert compiler_options() == {}
        with backend.planned_for("gpu"):
            assert backend.platform() == "gpu"
        assert backend.platform() == "tpu"
    assert backend.platform() == jax.default_backend()
    with pytest.raises(KeyError), backend.planned_for("tpu"):
        raise KeyError
    assert backend.platform() == jax.default_backend()
