import itertools

import jax
import pytest

from gxdistill.errors import UserError
from gxdistill.models import cached
from gxdistill.models.cached import cached_network


def test_equal_settings_give_the_same_network_so_that_programs_are_shared():
    first = cached_network("convnet", {"width": 4, "depth": 1}, (16, 16, 1), 3)
    assert cached_network("convnet", {"depth": 1, "width": 4}, (16, 16, 1), 3) is first
    others = [
        cached_network("convnet", {"width": 4, "depth": 1}, shape, classes)
        for shape, classes in (((16, 16, 3), 3), ((16, 16, 1), 2))
    ]
    for one, other in itertools.combinations([first, *others], 2):
        assert one is not other
    shapes = jax.tree.map(
        lambda leaf: leaf.shape, jax.eval_shape(others[1].init, jax.random.key(0))
    )
    assert shapes["Dense_0"]["kernel"] == (8 * 8 * 4, 2)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("lenett", {}, "'lenett'"),
        ("convnet", {"depht": 3}, "'depht'"),
        ("convnet", {"depth": 5}, "too small"),
        ("convnet", {"width": "wide"}, "wide"),
        ("convnet", {"width": 2.5}, "2.5"),
        ("convnet", {"depth": None}, "None"),
        ("convnet", {"norm": 3}, "3"),
        ("convnet", {"dtype": "float8"}, "float8"),
        ("resnet18", {"stages": 3}, "3"),
        ("resnet18", {"stages": ["a"]}, "'a'"),
    ],
)
def test_a_network_that_cannot_be_is_the_users_to_mend(name, options, message):
    with pytest.raises(UserError, match=r"^network: ") as refusal:
        cached_network(name, options, (16, 16, 1), 3)
    assert message in str(refusal.value)


def test_networks_of_many_strangers_are_not_kept_for_ever():
    for width in range(1, 40):
        cached_network("convnet", {"width": width, "depth": 1}, (16, 16, 1), 3)
    assert cached._network.cache_info().currsize == cached._network.cache_info().maxsize == 32
