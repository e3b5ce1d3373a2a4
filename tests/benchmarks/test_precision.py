import numpy as np
import pytest

from benchmarks import precision
from gxdistill.pytrees import Distilled


def test_the_largest_relative_distance_counts():
    exact = Distilled(np.array([3.0, 4.0]), np.array([[2.0], [0.0]]), np.array([1.0]))
    rough = Distilled(np.array([3.0, 4.5]), np.array([[2.0], [0.5]]), np.array([1.1]))
    # 0.5 of 5, 0.5 of 2, and 0.1 of 1.
    assert precision.apart(rough, exact) == pytest.approx(0.25)


@pytest.mark.parametrize("name", precision.ROWS)
def test_a_row_computes_in_the_type_it_names(name):
    config = precision.config_for(precision.ROWS[name], "bfloat16")
    assert config.network.options.dtype == "bfloat16"
    assert config.network.name == {"mnist": "lenet", "radiograph": "convnet"}[name]
