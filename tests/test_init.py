import importlib

import pytest

import gxdistill


@pytest.mark.parametrize("name", gxdistill.__all__)
def test_a_promised_name_is_the_one_its_module_defines(name):
    value = getattr(gxdistill, name)
    home = importlib.import_module(value.__module__)
    assert value.__module__.startswith("gxdistill.")
    assert getattr(home, value.__name__) is value


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="'gxdistill' has no attribute 'unrol'"):
        gxdistill.unrol  # noqa: B018
